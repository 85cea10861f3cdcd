"""Holds one aggregate in memory: its state and the chassis' own columns, as loaded from its row or as an absent row begins."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Self

from schemas.envelope import Event
from services.chassis.kernel.aggregate import Domain, Ref, State
from services.chassis.kernel.numbering import with_id
from services.chassis.kernel.records import Logged


class UnparsedState(NamedTuple):
    """A state as the JSON text of its row; it is parsed only on use, since many rows are loaded only to stamp an offset."""

    type: type[State]
    text: str


@dataclass(slots=True)
class AggregateRow:
    """A loaded aggregate: its state and the chassis' own columns."""

    _state: State | UnparsedState
    sequence: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None
    offsets: dict[str, int] = field(default_factory=dict)
    own_event_id: str | None = None
    own_ids: str = ""
    """Id endings of the last own events, see `numbering`."""
    changed: bool = True
    """Whether anything but `offsets` differs from the stored row."""

    @classmethod
    def absent(cls, domain: Domain, ref: Ref) -> Self:
        """The row of an aggregate of which nothing was folded yet."""
        return cls(domain.aggregates[ref.aggregate].state())

    @property
    def state(self) -> State:
        """The state; it is parsed on first use."""
        if isinstance(self._state, UnparsedState):
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
