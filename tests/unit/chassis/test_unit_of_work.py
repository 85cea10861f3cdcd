"""Rule 1 of docs/architecture.md: a service applies its own event when it decides, and knows it by its number when it comes back."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from types import SimpleNamespace
from typing import cast

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from examples.tally.domain import Tally
from schemas.envelope import Event
from schemas.jobs import JobRejected
from schemas.reasons import Reason
from schemas.requests import JobRequested
from services.chassis.kafka.publisher import outside_event
from services.chassis.kernel import ticker
from services.chassis.kernel.aggregate import Decision, Ref, State
from services.chassis.kernel.numbering import SequenceGap, with_id
from services.chassis.kernel.records import Logged
from services.chassis.kernel.transaction.aggregate_row import AggregateRow, UnparsedState
from services.chassis.kernel.transaction.commands import transact
from services.chassis.kernel.transaction.folding import Incoming
from services.chassis.kernel.transaction.unit_of_work import EndlessDecisions, UnitOfWork
from services.chassis.kernel.transaction.writing import row_columns
from services.chassis.process.health import Health
from tests.simulation.clock import Clock
from tests.simulation.database import Database
from tests.simulation.turns import Task
from tests.toy import ToyDomain

NOW = datetime(2030, 1, 1, tzinfo=UTC)
REF = Ref("tally", "job-1")


def a_unit(row: AggregateRow | None = None) -> UnitOfWork:
    ids = (f"own-{number}" for number in count(1))
    return UnitOfWork(ToyDomain("toy", "job-"), {REF: row or AggregateRow(Tally())}, NOW, lambda: next(ids))


def asked(offset: int = 0) -> Incoming:
    event = outside_event("outside", JobRequested(job_id="job-1", request={}), correlation_id="job-1")
    return Incoming(event, Logged(NOW, "requests", 0, offset))


def came_back(event: Event, offset: int = 0) -> Incoming:
    return Incoming(event, Logged(NOW, "jobs", 3, offset))


def test_a_fact_is_folded_and_what_follows_is_decided_numbered_and_applied_at_once() -> None:
    unit = a_unit()
    unit.fold(asked())
    (own,) = unit.emitted
    assert (own.type, own.sequence, own.source, own.subject) == ("JobRejected", 1, "neuroweaver/toy", "job-1")
    assert unit.rows[REF].sequence == 1
    assert unit.states[REF].refused == 1  # type: ignore[attr-defined]


def test_a_decision_names_its_cause_and_stays_in_the_trace() -> None:
    unit, cause = a_unit(), asked()
    unit.fold(cause)
    (own,) = unit.emitted
    assert own.causation_id == cause.event.id
    assert own.correlation_id == "job-1"
    assert own.traceparent.split("-")[1] == cause.event.traceparent.split("-")[1]
    assert own.traceparent != cause.event.traceparent


def test_an_own_event_that_comes_back_is_skipped_but_its_offset_is_stamped() -> None:
    unit = a_unit()
    unit.fold(asked())
    (own,) = unit.emitted
    before = unit.states[REF]
    unit.fold(came_back(own, offset=41))
    assert unit.skipped == 1
    assert unit.states[REF] == before
    assert unit.rows[REF].offsets == {"requests:0": 0, "jobs:3": 41}
    assert len(unit.emitted) == 1


def test_an_own_event_with_the_next_number_is_applied_as_after_a_lost_database() -> None:
    decided = a_unit()
    decided.fold(asked())
    unit = a_unit()
    unit.fold(came_back(decided.emitted[0]))
    assert unit.rows[REF].sequence == 1
    assert unit.states[REF].refused == 1  # type: ignore[attr-defined]
    assert unit.emitted == []


def test_an_own_event_with_a_higher_number_stops_the_partition() -> None:
    decided = a_unit(AggregateRow(Tally(), sequence=4))
    decided.fold(asked())
    with pytest.raises(SequenceGap, match="number 5 after 0"):
        a_unit().fold(came_back(decided.emitted[0]))


def test_offsets_only_grow() -> None:
    unit = a_unit()
    unit.fold(asked(offset=9))
    unit.fold(asked(offset=3))
    assert unit.rows[REF].offsets["requests:0"] == 9


def test_times_are_those_of_events_and_updated_at_is_their_maximum() -> None:
    unit = a_unit()
    for hours in (1, -1):
        incoming = asked()
        unit.fold(incoming._replace(event=incoming.event._replace(time=NOW + timedelta(hours=hours))))
    assert unit.rows[REF].created_at == NOW - timedelta(hours=1)
    assert unit.rows[REF].updated_at == NOW + timedelta(hours=1)


def test_a_decide_that_never_rests_is_a_fault_and_not_a_loop() -> None:
    class Talkative(ToyDomain):
        def decide(self, ref: Ref, states: object, now: datetime) -> Decision | None:
            return Decision(ref, ref.key, JobRejected(job_id=ref.key, reasons=()))

    unit = a_unit()
    unit.domain = Talkative("toy", "job-")
    with pytest.raises(EndlessDecisions):
        unit.fold(asked())


def test_an_own_event_that_comes_back_costs_neither_its_row_nor_its_state_anything() -> None:
    before = a_unit()
    before.fold(asked())
    (own,) = before.emitted
    unit = a_unit(
        AggregateRow(UnparsedState(Tally, "is not even looked at"), sequence=1, own_ids=with_id("", own.id), changed=False)
    )
    unit.fold(came_back(own, offset=41))
    assert (unit.skipped, unit.rows[REF].changed, unit.rows[REF].offsets) == (1, False, {"jobs:3": 41})
    ((_, columns),) = row_columns(unit.domain, unit.rows)
    assert columns.pop("key") == ["job-1"]
    assert columns.pop("offsets") == ['{"jobs:3": 41}']
    assert all(values == [None] for values in columns.values())


def test_a_state_is_read_when_it_is_asked_for_and_written_whole_when_it_has_changed() -> None:
    unit = a_unit(AggregateRow(UnparsedState(Tally, '{"refused": 7}'), changed=False))
    unit.fold(asked())
    assert unit.rows[REF].changed
    assert unit.states[REF] == Tally(requests=1, refused=7, order=unit.states[REF].order)  # type: ignore[attr-defined]


def test_what_a_decision_touches_is_asked_about_at_once() -> None:
    """So nothing is left to be decided when the own event comes back."""
    other = Ref("tally", "job-2")

    class Chained(ToyDomain):
        def touches(self, event: Event) -> tuple[Ref, ...]:
            return (REF, other) if event.subject == REF.key else super().touches(event)

        def decide(self, ref: Ref, states: Mapping[Ref, State], now: datetime) -> Decision | None:
            mine = states[ref]
            assert isinstance(mine, Tally)
            wanted = mine.requests if ref == REF else mine.refused
            done = mine.refused if ref == REF else mine.reminded
            reasons = () if ref == REF else (Reason(field="f", message="m", remedy="r"),)
            return Decision(ref, ref.key, JobRejected(job_id=ref.key, reasons=reasons)) if wanted and not done else None

    ids = (f"own-{number}" for number in count(1))
    unit = UnitOfWork(
        Chained("toy", "job-"), {REF: AggregateRow(Tally()), other: AggregateRow(Tally())}, NOW, lambda: next(ids)
    )
    unit.fold(asked())
    assert [(event.subject, event.sequence) for event in unit.emitted] == [("job-1", 1), ("job-2", 1)]


def test_what_follows_from_a_command_is_decided_in_its_transaction() -> None:
    database, domain = Database(Clock()), ToyDomain("toy", "job-")
    reason = Reason(field="clock", message="time is up", remedy="none")

    async def command() -> None:
        async with transact(cast(AsyncEngine, database), domain, None, [REF]) as locked:
            locked.unit.rows[REF].state = Tally(requests=1)
            locked.unit.apply(Decision(REF, REF.key, JobRejected(job_id=REF.key, reasons=(reason,))))

    task = Task("command", command())
    while not task.done:
        task.go_on()
    reasons = [json.loads(row["payload"])["reasons"] for row in database.rows("outbox").values()]
    assert [len(found) for found in reasons] == [1, 0]


def test_a_row_that_was_due_for_an_earlier_release_and_is_not_for_this_one_is_looked_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the ticker would find it at every look, for ever, and a hundred of them would hide all that is due."""
    clock, domain = Clock(), ToyDomain("toy", "job-")
    database = Database(clock)
    nothing = {"created_at": NOW, "updated_at": NOW, "offsets": "{}", "own_event_id": None, "own_ids": ""}
    row = {"sequence": 0, "state": Tally().model_dump_json(), "due_at": clock.now - timedelta(days=1), **nothing}
    database.rows("tally")[REF.key,] = row
    monkeypatch.setattr(ticker, "asyncio", SimpleNamespace(get_running_loop=lambda: SimpleNamespace(time=lambda: 0.0)))
    look = ticker.Ticker(cast(AsyncEngine, database), domain, None, Health("toy", ()))._look({})
    task = Task("ticker", look)
    while not task.done:
        task.go_on()
    assert database.rows("tally")[REF.key,] == {**row, "due_at": None}
