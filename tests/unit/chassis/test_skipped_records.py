"""What a restore cannot fold leaves no trace in the rows, holds up what is behind it, and is never an own event."""

from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.envelope import Event, encode
from schemas.ids import new_id
from schemas.jobs import JobRejected
from schemas.requests import JobCancelRequested
from services.chassis.kafka.publisher import outside_event
from services.chassis.kernel.aggregate import AggregateType, Ref, State
from services.chassis.kernel.records import Logged
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.batch import RecordFailure
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.chassis.replay import skipped as setting_aside
from services.chassis.replay.skipped import SkippedRecords
from tests.audit import record

FIRST, SECOND = Ref("left", "job"), Ref("right", "job")


class Count(State):
    """How many events were folded."""

    count: int = 0


class Pair:
    """Every event is folded on two aggregates; the second of them refuses some."""

    source = "neuroweaver/pair"
    handles = frozenset({"JobCancelRequested", "JobRejected"})

    def __init__(self) -> None:
        self.aggregates = {name: AggregateType(name, Count) for name in ("left", "right")}
        self.refused: set[str] = set()

    def touches(self, event: Event) -> tuple[Ref, ...]:
        return FIRST, SECOND

    def owner(self, event: Event) -> Ref:
        return FIRST

    def evolve(self, ref: Ref, state: Any, event: Event, logged: Logged | None) -> State:
        if ref == SECOND and event.id in self.refused:
            raise ValueError("no")
        return Count(count=state.count + 1)

    def decide(self, *_: object) -> None:
        return None


@pytest.fixture
def domain() -> Pair:
    return Pair()


@pytest.fixture
def unit(domain: Pair) -> UnitOfWork:
    return UnitOfWork(domain, {ref: AggregateRow(Count()) for ref in (FIRST, SECOND)}, datetime.now(UTC), new_id)


def cancels(count: int) -> list[Event]:
    return [outside_event("outside", JobCancelRequested(job_id="job"), correlation_id="job") for _ in range(count)]


def fold(aside: SkippedRecords, unit: UnitOfWork, events: list[Event]) -> None:
    for offset, event in enumerate(events):
        value, headers = encode(event)
        aside.fold(unit, record(value, *headers, topic="requests", offset=offset), event, repeated=False)


def test_a_record_that_fails_half_way_leaves_both_rows_as_they_were_and_holds_up_those_behind_it(
    domain: Pair, unit: UnitOfWork
) -> None:
    events = cancels(4)
    domain.refused = {events[1].id}
    aside = SkippedRecords(domain)
    fold(aside, unit, events)
    assert {ref: (row.state.count, row.offsets) for ref, row in unit.rows.items()} == {  # type: ignore[attr-defined]
        FIRST: (1, {"requests:0": 0}),
        SECOND: (1, {"requests:0": 0}),
    }
    assert [(row["offset"], row["state"], row["blocked_by"]) for row in aside.letters] == [
        (1, "failed", None), (2, "parked", 1), (3, "parked", 1),
    ]  # fmt: skip


def own(domain: Pair, number: int) -> Event:
    return Event(
        id=f"own-{number}", source=domain.source, subject="job", time=datetime.now(UTC), sequence=number, correlation_id="job",
        data=JobRejected(job_id="job", reasons=()), causation_id=None, traceparent="",
    )  # fmt: skip


def test_an_own_event_is_never_set_aside(domain: Pair, unit: UnitOfWork) -> None:
    domain.refused = {"own-1"}
    with pytest.raises(RecordFailure, match="ValueError: no"):
        fold(SkippedRecords(domain), unit, [own(domain, 1)])


def test_an_own_event_that_is_passed_over_is_known_when_the_relay_sent_it_twice(domain: Pair, unit: UnitOfWork) -> None:
    domain.refused = {"own-2"}
    aside = SkippedRecords(domain, accepting=True)
    fold(aside, unit, [own(domain, number) for number in (1, 2, 3, 2, 4)])
    assert unit.rows[FIRST].sequence == 4
    assert len(aside.passed_over) == 1


def test_one_failure_too_many_ends_the_fold(domain: Pair, unit: UnitOfWork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setting_aside, "MAX_FAILED", 0)
    events = cancels(1)
    domain.refused = {events[0].id}
    with pytest.raises(RecordFailure):
        fold(SkippedRecords(domain), unit, events)
