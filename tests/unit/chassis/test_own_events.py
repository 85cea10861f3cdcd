"""Own events that come back are recognised by their bytes, with the same result as decoding them; anything else is decoded."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.tally.domain import Tally
from schemas.envelope import Event, encode
from schemas.generate.examples import REQUEST
from schemas.ids import new_id
from schemas.jobs import JobRejected
from schemas.reasons import Reason
from schemas.requests import JobRequested
from schemas.steps import Policy
from schemas.topics import JOBS
from services.chassis.kafka.publisher import outside_event
from services.chassis.kernel.aggregate import Decision, Ref
from services.chassis.kernel.records import Logged, event_in
from services.chassis.kernel.transaction import own_events
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.folding import Incoming
from services.chassis.kernel.transaction.own_events import OwnEvents
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.chassis.kernel.transaction.writing import outbox_columns, outbox_rows
from services.orchestrator.domain.job import JobDomain
from services.orchestrator.domain.state import JobState
from tests.log import HeldRecord
from tests.toy import ToyDomain

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DOMAIN = ToyDomain("toy", "job-")
REF = Ref("tally", "job-1")


def emitted(*words: str) -> list[Event]:
    """One own event with each of these words."""
    unit = UnitOfWork(DOMAIN, {REF: AggregateRow(Tally())}, NOW, new_id)
    for word in words:
        reason = Reason(field="x", message=word, remedy="x")
        unit.apply(Decision(REF, REF.key, JobRejected(job_id="job-1", reasons=(reason,))))
    return unit.emitted


def back(event: Event) -> HeldRecord:
    """The event as the log gives it back."""
    value, headers = encode(event)
    return HeldRecord(JOBS.name, 0, 7, 1_900_000_000_000, b"job-1", value, tuple(headers))


def knowing(events: list[Event]) -> OwnEvents:
    own = OwnEvents()
    own.add(events, outbox_rows(range(1, len(events) + 1), outbox_columns(events)))
    return own


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00")), min_size=1, max_size=3))
def test_an_own_event_that_comes_back_is_the_one_that_decoding_would_give(words: list[str]) -> None:
    events = emitted(*words)
    own = knowing(events)
    for event in events:
        assert own.take(back(event), DOMAIN.handles) is event
        assert event_in(back(event), DOMAIN.handles) == event


def test_so_are_a_jobs_first_events() -> None:
    job, domain = "job-1", JobDomain(Policy())
    request = {**REQUEST, "job_id": job, "deadline": (NOW + timedelta(days=1)).isoformat()}
    asked = outside_event("outside", JobRequested(job_id=job, request=request), correlation_id=job)
    unit = UnitOfWork(domain, {Ref("job", job): AggregateRow(JobState())}, NOW, new_id)
    unit.fold(Incoming(asked, Logged(NOW, "neuroweaver.requests", 0, 0)))
    assert [event.type for event in unit.emitted][:2] == ["JobAccepted.v2", "StepRequested.v2"]
    own = knowing(unit.emitted)
    for event in unit.emitted:
        assert own.take(back(event), domain.handles) is event
        assert event_in(back(event), domain.handles) == event


def test_an_event_is_recognised_once() -> None:
    events = emitted("a")
    own = knowing(events)
    assert own.take(back(events[0]), DOMAIN.handles) is events[0]
    assert own.take(back(events[0]), DOMAIN.handles) is None


@pytest.mark.parametrize(
    "changed",
    [
        lambda record: replace(record, topic="neuroweaver.requests"),
        lambda record: replace(record, value=record.value + b" "),
        lambda record: replace(record, value=None),
        lambda record: replace(record, headers=record.headers[:-1]),
        lambda record: replace(record, headers=(*record.headers, ("traced", b"1"))),
        lambda record: replace(record, headers=tuple((name, None) for name, _ in record.headers)),
        lambda record: replace(
            record, headers=tuple((n, b"neuroweaver/other" if n == "ce_source" else value) for n, value in record.headers)
        ),
    ],
    ids=["topic", "value", "none", "fewer", "more", "null", "source"],
)
def test_a_record_that_differs_in_anything_is_decoded(changed) -> None:  # type: ignore[no-untyped-def]
    events = emitted("a")
    own = knowing(events)
    assert own.take(changed(back(events[0])), DOMAIN.handles) is None
    assert own.take(back(events[0]), DOMAIN.handles) is events[0]


def test_an_event_of_a_type_that_is_not_handled_is_decoded() -> None:
    events = emitted("a")
    assert knowing(events).take(back(events[0]), frozenset()) is None


def test_of_too_many_events_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_events, "MOST_EVENTS", 2)
    events = emitted("a", "b", "c")
    own = knowing(events)
    assert [own.take(back(event), DOMAIN.handles) for event in events] == [None, *events[1:]]


def test_of_too_large_events_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_events, "MOST_CHARACTERS", 3000)
    events = emitted("a" * 1500, "b" * 1500, "c" * 1000)
    own = knowing(events)
    assert [own.take(back(event), DOMAIN.handles) for event in events] == [None, *events[1:]]
