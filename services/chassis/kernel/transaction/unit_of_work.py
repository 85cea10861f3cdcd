"""Folds events into loaded states in memory, and numbers and applies own decisions.

It is pure: ids and the time are passed in. Rule 1 of docs/architecture.md: an own event that comes back is applied when its
sequence number is the next, and skipped when it is lower or equal (its offset is stamped all the same); `numbering` says what
a higher number means.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from schemas.envelope import Event
from schemas.ids import child_traceparent, root_traceparent
from services.chassis.kernel.aggregate import Decision, Domain, Ref, State, is_own
from services.chassis.kernel.numbering import Early, Numbered, gap, numbered, with_id
from services.chassis.kernel.records import Logged

MAX_DECISIONS = 1000
"""After this many decisions in a row `decide` is considered not to terminate."""


class EndlessDecisions(Exception):
    """`decide` did not stop returning decisions, which is a fault of the domain."""


class Unread(NamedTuple):
    """A state as the JSON text of its row; it is parsed only on use, since many rows are loaded only to stamp an offset."""

    type: type[State]
    text: str


@dataclass(slots=True)
class AggregateRow:
    """A loaded aggregate: its state and the chassis' own columns."""

    _state: State | Unread
    sequence: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None
    offsets: dict[str, int] = field(default_factory=dict)
    own_event_id: str | None = None
    own_ids: str = ""
    """Id endings of the last own events, see `numbering`."""
    changed: bool = True
    """Whether anything but `offsets` differs from the stored row."""

    @property
    def state(self) -> State:
        """The state; it is parsed on first use."""
        if isinstance(self._state, Unread):
            self._state = self._state.type.stored(self._state.text)
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        self._state, self.changed = state, True

    def fold(self, domain: Domain, ref: Ref, event: Event, logged: Logged | None) -> None:
        """Fold an event into the state."""
        self.state = domain.evolve(ref, self.state, event, logged)
        if self.created_at is None or event.time < self.created_at:
            self.created_at = event.time
        if self.updated_at is None or event.time > self.updated_at:
            self.updated_at = event.time

    def number(self, event: Event) -> None:
        """Store the sequence number and id of the next own event."""
        assert event.sequence is not None
        self.sequence, self.own_event_id, self.changed = event.sequence, event.id, True
        self.own_ids = with_id(self.own_ids, event.id)

    def jump_to(self, sequence: int) -> None:
        """Continue after `sequence` although the own events up to it are not on the log."""
        if sequence != self.sequence:
            self.sequence, self.own_ids, self.changed = sequence, "", True

    def stamp(self, logged: Logged) -> None:
        """Store how far a partition was read."""
        place = f"{logged.topic}:{logged.partition}"
        if logged.offset > self.offsets.get(place, -1):
            self.offsets[place] = logged.offset


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


class Incoming(NamedTuple):
    """A decoded record with its position in the log."""

    event: Event
    logged: Logged


@dataclass
class UnitOfWork:
    """The unit of work of one transaction on locked rows. `rows` holds every row that may be touched."""

    domain: Domain
    rows: dict[Ref, AggregateRow]
    now: datetime
    new_id: Callable[[], str]
    early: Early | None = None
    """Where a replay holds own events until their predecessors are read; None in a live service."""
    emitted: list[Event] = field(default_factory=list)
    """Own events decided here, numbered, in order; they go to the outbox."""
    folded: list[Event] = field(default_factory=list)
    """Every event that was folded here, in order."""
    skipped: int = 0
    """Number of own events that were already known, and of producers' duplicates."""

    @property
    def states(self) -> Mapping[Ref, State]:
        """The states as they are now, a live view."""
        return LiveStates(self.rows)

    def fold(self, incoming: Incoming) -> None:
        """Fold one record and take the decisions that follow; a known own event triggers none.

        Raises SequenceGap, OtherWriter, EndlessDecisions or a domain error.
        """
        event, refs, known = incoming.event, self.domain.touches(incoming.event), self.skipped
        self._take(event, refs, incoming.logged)
        self._stamp(refs, incoming.logged)
        if self.skipped == known:
            self.settle(*refs, cause=event)

    def pass_over(self, incoming: Incoming) -> None:
        """Skip a producer's duplicate: only the offsets of the rows it touches change."""
        self.skipped += 1
        self._stamp(self.domain.touches(incoming.event), incoming.logged)

    def _stamp(self, refs: Sequence[Ref], logged: Logged) -> None:
        for ref in refs:
            self.rows[ref].stamp(logged)

    def fold_ahead(self, event: Event) -> None:
        """Fold an own event that lies beyond the position, without an offset, as when it was decided. Raises SequenceGap, OtherWriter."""
        if refs := self.domain.touches(event):
            self._take(event, refs, None)

    def _take(self, event: Event, refs: Sequence[Ref], logged: Logged | None) -> None:
        if not self._has_number(event, refs):
            self._evolve(event, refs, logged)
            return
        owner = self.domain.owner(event)
        match self._numbered(owner, event, logged):
            case Numbered.KNOWN:
                self.skipped += 1
            case Numbered.NEXT:
                self._evolve(event, refs, logged)
                while self.early and (next_one := self.early.after(owner, self.rows[owner].sequence)):
                    self._evolve(next_one.event, self.domain.touches(next_one.event), next_one.logged)
            case Numbered.EARLY if self.early is not None:
                self.early.hold(owner, self.rows[owner].sequence, event, logged)
            case Numbered.EARLY:
                raise gap(owner, self.rows[owner].sequence, event)

    def _has_number(self, event: Event, refs: Sequence[Ref]) -> bool:
        return bool(refs) and is_own(self.domain, event)

    def _numbered(self, owner: Ref, event: Event, logged: Logged | None) -> Numbered:
        row = self.rows[owner]
        return numbered(owner, row.sequence, row.own_ids, event, logged)

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
                raise EndlessDecisions(f"decide gave {MAX_DECISIONS} decisions on {ref.aggregate} {ref.key} without rest")
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
        self._evolve(event, self.domain.touches(event), None)
        self.emitted.append(event)
        return event

    def _evolve(self, event: Event, refs: Sequence[Ref], logged: Logged | None) -> None:
        for ref in refs:
            self.rows[ref].fold(self.domain, ref, event, logged)
        if self._has_number(event, refs):
            self.rows[self.domain.owner(event)].number(event)
        self.folded.append(event)
