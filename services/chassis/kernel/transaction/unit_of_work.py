"""Decides on folded rows: numbers decisions as own events, folds each at once and collects them for the outbox.

It is pure: ids and the time are passed in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from schemas.envelope import Event
from schemas.ids import child_traceparent, root_traceparent
from services.chassis.kernel.aggregate import Decision, Ref, State
from services.chassis.kernel.records import Logged
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.folding import FoldedRows, Incoming

MAX_DECISIONS = 1000
"""After this many decisions in a row `decide` is considered not to terminate."""


class EndlessDecisions(Exception):
    """`decide` did not stop returning decisions, which is a fault of the domain."""


class LiveStates(Mapping[Ref, State]):
    """A live view of the states of rows."""

    def __init__(self, rows: Mapping[Ref, AggregateRow]) -> None:
        self._rows = rows

    def __getitem__(self, ref: Ref) -> State:
        return self._rows[ref].state

    def __iter__(self) -> Iterator[Ref]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


@dataclass
class UnitOfWork(FoldedRows):
    """The unit of work of one transaction on locked rows. `rows` holds every row that may be touched."""

    now: datetime
    new_id: Callable[[], str]
    emitted: list[Event] = field(default_factory=list)
    """Own events decided here, numbered, in order; they go to the outbox."""
    folded: list[Event] = field(default_factory=list)
    """Every event that was folded here, in order."""

    @property
    def states(self) -> Mapping[Ref, State]:
        """The states as they are now, a live view."""
        return LiveStates(self.rows)

    def fold(self, incoming: Incoming) -> None:
        """Fold one record and take the decisions that follow; a known own event triggers none.

        Raises SequenceGap, OtherWriter, EndlessDecisions or a domain error.
        """
        if refs := self.take(incoming):
            self.settle(*refs, cause=incoming.event)

    def settle(self, *refs: Ref, cause: Event | None = None) -> None:
        """Call `decide` for `refs` and for all aggregates that its decisions touch, until it returns None for each.

        After that nothing is undecided, so an own event that comes back needs no further call.
        """
        asking, decisions = dict.fromkeys(refs), 0
        while asking:
            ref = next(iter(asking))
            decision = self.domain.decide(ref, self.states, self.now)
            if decision is None:
                del asking[ref]
                continue
            if (decisions := decisions + 1) > MAX_DECISIONS:
                raise EndlessDecisions(
                    f"decide returned {MAX_DECISIONS} decisions on {ref.aggregate} {ref.key} in a row and did not stop"
                )
            asking |= dict.fromkeys(self.domain.touches(self.apply(decision, cause)))

    def apply(self, decision: Decision, cause: Event | None = None) -> Event:
        """Turn a decision into the next own event of its aggregate, fold it, and add it to `emitted`."""
        row = self.rows[decision.owner]
        parent = cause.traceparent if cause else row.state.traceparent
        event = Event(
            id=self.new_id(),
            source=self.domain.source,
            subject=decision.subject,
            time=self.now,
            data=decision.data,
            sequence=row.sequence + 1,
            correlation_id=(cause and cause.correlation_id) or row.state.correlation_id or decision.owner.key,
            causation_id=cause.id if cause else row.own_event_id or row.state.opened_by,
            traceparent=child_traceparent(parent or root_traceparent(self.domain.source, decision.owner.key)),
        )
        refs = self.domain.touches(event)
        owner = self._owner(event, refs)
        self._evolve(event, refs, None, None if owner is None else self.rows[owner])
        self.emitted.append(event)
        return event

    def _evolve(self, event: Event, refs: Sequence[Ref], logged: Logged | None, owner: AggregateRow | None) -> None:
        super()._evolve(event, refs, logged, owner)
        self.folded.append(event)
