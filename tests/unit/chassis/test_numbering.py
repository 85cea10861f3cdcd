"""Rule 1 under any order of facts, decisions, echoes and losses: the number decides, and a gap is never passed over."""

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from examples.tally.domain import Tally
from schemas.envelope import Event
from schemas.jobs import JobRejected
from schemas.requests import JobCancelRequested, JobRequested
from services.chassis.kafka.publisher import outside_event
from services.chassis.kernel.aggregate import Decision, Ref
from services.chassis.kernel.numbering import SequenceGap
from services.chassis.kernel.records import Logged
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.folding import Incoming
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from tests.explored import examples
from tests.toy import ToyDomain

REF = Ref("tally", "job-1")
NOW = datetime(2030, 1, 1, tzinfo=UTC)
_SOURCE, _JOB = "outside", "job-1"


class Numbering(RuleBasedStateMachine):
    """One aggregate: the log of its own events, and a row that may be lost and folded again from any point of it."""

    def __init__(self) -> None:
        super().__init__()
        self.ids = (f"own-{number}" for number in count(1))
        self.own: list[Event] = []
        """Own events in the order of their numbers, as they lie in the log."""
        self.applied = 0
        """The number up to which the row has them."""
        self.facts: list[str] = []
        self.offsets: dict[str, int] = {}
        self.moments: list[datetime] = []
        self.lose()

    def lose(self) -> None:
        self.unit = UnitOfWork(ToyDomain("toy", "job-"), {REF: AggregateRow(Tally())}, NOW, lambda: next(self.ids))

    def fold(self, event: Event, topic: str, offset: int) -> None:
        before = len(self.unit.emitted)
        self.unit.fold(Incoming(event, Logged(NOW, topic, 0, offset)))
        place = f"{topic}:0"
        self.offsets[place] = max(self.offsets.get(place, -1), offset)
        self._keep(self.unit.emitted[before:])

    def _keep(self, decided: list[Event]) -> None:
        self.own += decided
        self.applied += len(decided)
        self.moments += [event.time for event in decided]

    @precondition(lambda self: self.applied == len(self.own))
    @rule(seconds=st.integers(-100, 100), offset=st.integers(0, 50), cancels=st.booleans())
    def a_fact_arrives(self, seconds: int, offset: int, cancels: bool) -> None:
        data = JobCancelRequested(job_id=_JOB) if cancels else JobRequested(job_id=_JOB, request={})
        event = outside_event(_SOURCE, data, correlation_id=_JOB)._replace(time=NOW + timedelta(seconds=seconds))
        self.facts.append(event.id)
        self.moments.append(event.time)
        self.fold(event, "requests", offset)

    @precondition(lambda self: self.applied == len(self.own))
    @rule()
    def something_is_decided_without_an_event(self) -> None:
        self._keep([self.unit.apply(Decision(REF, REF.key, JobRejected(job_id=_JOB, reasons=())))])

    @precondition(lambda self: self.own)
    @rule(data=st.data(), offset=st.integers(0, 50))
    def an_own_event_comes_back(self, data: st.DataObject, offset: int) -> None:
        number = data.draw(st.integers(1, len(self.own)))
        event = self.own[number - 1]
        before, skipped = self.unit.states[REF], self.unit.skipped
        if number > self.applied + 1:
            with pytest.raises(SequenceGap, match=rf"number {number} after {self.applied}:"):
                self.unit.fold(Incoming(event, Logged(NOW, "jobs", 0, offset)))
            assert self.unit.states[REF] == before
        elif number == self.applied + 1:
            self.applied, self.moments = number, [*self.moments, event.time]
            self.fold(event, "jobs", offset)
        else:
            self.fold(event, "jobs", offset)
            assert self.unit.skipped == skipped + 1
            assert self.unit.states[REF] == before

    @rule()
    def the_row_is_lost_and_its_facts_with_it(self) -> None:
        self.lose()
        self.applied, self.facts, self.offsets, self.moments = 0, [], {}, []

    @invariant()
    def numbers_are_dense(self) -> None:
        assert [event.sequence for event in self.own] == list(range(1, len(self.own) + 1))
        assert self.unit.rows[REF].sequence == self.applied
        assert self.unit.rows[REF].own_event_id == (self.own[self.applied - 1].id if self.applied else None)

    @invariant()
    def every_fact_and_every_decision_is_in_the_row_once(self) -> None:
        state = self.unit.states[REF]
        assert isinstance(state, Tally)
        assert list(state.order) == self.facts
        assert state.refused == self.applied

    @invariant()
    def offsets_and_times_are_the_highest_and_the_earliest(self) -> None:
        row = self.unit.rows[REF]
        assert row.offsets == self.offsets
        assert row.updated_at == max(self.moments, default=None)
        assert row.created_at == min(self.moments, default=None)


TestNumbering = Numbering.TestCase
TestNumbering.settings = settings(max_examples=examples(40), stateful_step_count=30)
