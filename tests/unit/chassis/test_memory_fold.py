"""The past is folded by the services' own code, and stops where the live service would."""

from typing import Any

from schemas.envelope import Event, encode
from schemas.jobs import JobAccepted
from schemas.steps import Policy
from schemas.topics import JOBS, REQUESTS, TOPIC_OF
from services.chassis.kernel.aggregate import State
from services.chassis.kernel.records import Logged, appended_at
from services.chassis.replay.memory import MemoryFold
from services.chassis.replay.projection import Folding
from services.orchestrator.domain.job import JobDomain, job_ref
from services.orchestrator.domain.state import JobState
from tests.audit import MadeJob, record


def lying(events: list[Event]) -> list[Any]:
    """Events as records of one partition per topic."""
    written = [(event, *encode(event)) for event in events]
    return [
        record(value, *headers, topic=TOPIC_OF[event.type].name, offset=offset)
        for offset, (event, value, headers) in enumerate(written)
    ]


def status(fold: MemoryFold, job_id: str) -> str | None:
    state = fold.rows[job_ref(job_id)].state
    assert isinstance(state, JobState)
    return state.status


def test_a_job_is_folded_to_its_end_whichever_records_come_twice() -> None:
    fold = MemoryFold(Folding(JobDomain(Policy())))
    for each in lying(MadeJob("job-1", "router").events):
        fold.feed(each)
        fold.feed(each)
    assert status(fold, "job-1") == "completed"
    assert (fold.stopped, fold.unread) == ({}, 0)


def test_a_record_that_was_given_up_is_left_out() -> None:
    records = lying(MadeJob("job-1", "router").events)
    fold = MemoryFold(Folding(JobDomain(Policy())), {(JOBS.name, 0, len(records) - 1)})
    for each in records:
        fold.feed(each)
    assert status(fold, "job-1") == "running"


def test_garbage_is_counted_and_changes_nothing() -> None:
    fold = MemoryFold(Folding(JobDomain(Policy())))
    fold.feed(record(b"garbage", topic=REQUESTS.name))
    assert (dict(fold.rows), fold.unread) == ({}, 1)


class Poisoned(JobDomain):
    """Cannot fold JobAccepted of one job."""

    def evolve(self, ref: Any, state: Any, event: Event, logged: Logged | None) -> State:
        if ref.key == "poison" and isinstance(event.data, JobAccepted):
            raise ValueError("poison")
        return super().evolve(ref, state, event, logged)


def test_an_event_that_cannot_be_folded_stops_its_job_and_no_other() -> None:
    fold = MemoryFold(Folding(Poisoned(Policy())))
    for name in ("poison", "job-1"):
        for each in lying(MadeJob(name, "router").events):
            fold.feed(each)
    assert fold.stopped == {job_ref("poison"): "neuroweaver.jobs:0:1: ValueError: poison"}
    assert (status(fold, "poison"), status(fold, "job-1")) == ("requested", "completed")


def test_a_time_that_no_calendar_has_is_the_nearest_that_it_has() -> None:
    assert appended_at(record(timestamp=2**62)).year == 9998
    assert appended_at(record(timestamp=-5)).year == 1970
