"""Whether a job has ended, however often and in whichever order its events are read."""

from itertools import permutations

import pytest

from schemas.base import EventData
from schemas.jobs import JobCancelled, JobCompleted, JobControlled, JobFailed, StepFault
from services.registry.domain.job_ends import JobEndState, after_end, end_ref
from tests.steps import an_event

FAILED = JobFailed(job_id="job-1", step="train", fault=StepFault(cause="user", message="m"))
RETRIED = JobControlled(job_id="job-1", control="retry", request_id="r")
COMPLETED = JobCompleted(job_id="job-1", model=None, version=None)


@pytest.mark.parametrize(
    ("told", "ended"), [((FAILED,), True), ((FAILED, RETRIED), False), ((FAILED, RETRIED, COMPLETED), True)]
)
def test_the_event_with_the_highest_number_says_whether_it_has(told: tuple[EventData, ...], ended: bool) -> None:
    events = [an_event(data, sequence=number) for number, data in enumerate(told, 3)]
    for order in permutations([*events, *events]):
        state = JobEndState()
        for event in order:
            state = after_end(state, event)
        assert state.ended is ended


def test_only_what_ends_a_job_or_begins_it_again_is_about_its_end() -> None:
    paused = JobControlled(job_id="job-1", control="pause", request_id="r")
    assert end_ref(an_event(paused)) is None
    refs = {end_ref(an_event(data)) for data in (FAILED, RETRIED, COMPLETED, JobCancelled(job_id="job-1", reason="r"))}
    assert [ref and ref.key for ref in refs] == ["job-1"]
