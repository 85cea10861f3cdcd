"""Decides by sequence number whether an own event is the next, already known, early, or written by another deployment.

Rule 1 of docs/architecture.md. The sequence of an aggregate may span partitions: after a topic's partition count was raised, later
events lie on another partition than the earlier ones, and partitions have no order between them. A replay holds an early event
until its predecessors are read; what still waits at the end is a gap. A live service stops the partition instead.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from schemas.envelope import Event
from services.chassis.kernel.aggregate import Ref
from services.chassis.kernel.records import Logged, named

_ENDING = 8
"""Number of trailing characters of an id that are kept to recognise it; those of a UUIDv7 are random."""
_KEPT = 64
"""How many of an aggregate's last own events are recognised by id."""


class SequenceGap(Exception):
    """An own event was read before its predecessors."""


class OtherWriter(Exception):
    """A known sequence number comes back with another event id: another deployment writes as this service."""


class Numbered(Enum):
    """How an own event relates to the sequence of its row."""

    NEXT = "next"
    KNOWN = "known"
    EARLY = "early"


def with_id(ids: str, event_id: str) -> str:
    """Appends an event's id ending to those of the last own events; the last one belongs to the row's sequence number."""
    return (ids + event_id[-_ENDING:].rjust(_ENDING, "."))[-_ENDING * _KEPT :]


def numbered(owner: Ref, sequence: int, ids: str, event: Event, logged: Logged | None) -> Numbered:
    """How an own numbered `event` relates to a row with this sequence and these id endings. Raises OtherWriter."""
    assert event.sequence is not None
    if event.sequence > sequence:
        return Numbered.NEXT if event.sequence == sequence + 1 else Numbered.EARLY
    end = len(ids) - (sequence - event.sequence) * _ENDING
    known = ids[max(0, end - _ENDING) : max(0, end)]
    if known and known != event.id[-_ENDING:].rjust(_ENDING, "."):
        raise _another(owner, event, logged, f"the one whose id ends in {known!r}")
    return Numbered.KNOWN


@dataclass
class Elsewhere:
    """The sequences of aggregates whose rows a fold does not have, since it makes only some rows.

    Without the owner's row nothing says which number is the next. So an own event is folded when its number is seen for the first
    time, in whatever order: `evolve` commutes (rule 2).
    """

    _seen: set[tuple[str, int]] = field(default_factory=set)
    """Subject and sequence number; they are unique per source."""

    def numbered(self, event: Event) -> Numbered:
        """NEXT for a number that is new, else KNOWN."""
        assert event.sequence is not None
        number = (event.subject, event.sequence)
        if number in self._seen:
            return Numbered.KNOWN
        self._seen.add(number)
        return Numbered.NEXT


def gap(owner: Ref, sequence: int, event: Event) -> SequenceGap:
    """The error that a live service raises for an early event."""
    return SequenceGap(
        f"own event {event.type} {event.id} of {owner.aggregate} {owner.key} has number {event.sequence} after "
        f"{sequence}: if the topic got more partitions, the numbers between are on another partition, and this one "
        "continues when they are read; otherwise this database is older than the log: stop the service, drop its database "
        "and start it, and it is restored from the log"
    )


class _EarlyEvent(NamedTuple):
    event: Event
    logged: Logged | None


@dataclass
class EarlyEvents:
    """Own events that a replay read before their predecessors. Only aggregates whose key changed partition have any."""

    _waiting: dict[Ref, dict[int, _EarlyEvent]] = field(default_factory=dict)
    _sequences: dict[Ref, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def hold(self, owner: Ref, sequence: int, event: Event, logged: Logged | None) -> None:
        """Hold `event`; `sequence` is the sequence number of its row. Raises OtherWriter."""
        assert event.sequence is not None
        self._sequences[owner] = sequence
        known = self._waiting.setdefault(owner, {}).setdefault(event.sequence, _EarlyEvent(event, logged))
        if known.event.id != event.id:
            raise _another(owner, event, logged, f"{known.event.id}{_at(known.logged)}")

    def after(self, owner: Ref, sequence: int) -> _EarlyEvent | None:
        """Removes and returns the event that follows `sequence`; None where it is not held."""
        if owner not in self._waiting:
            return None
        self._sequences[owner] = sequence
        found = self._waiting[owner].pop(sequence + 1, None)
        if not self._waiting[owner]:
            del self._waiting[owner], self._sequences[owner]
        return found

    def events(self, owners: Iterable[Ref]) -> Iterator[Event]:
        """The held events of these aggregates."""
        for owner in owners:
            yield from (waiting.event for waiting in self._waiting.get(owner, {}).values())

    def owners(self) -> list[Ref]:
        """Aggregates that have held events."""
        return sorted(self._waiting)

    def release(self) -> Iterator[tuple[Ref, Event, Logged | None]]:
        """Removes and yields all held events, in the order of their sequence numbers."""
        waiting, self._waiting, self._sequences = self._waiting, {}, {}
        for owner in sorted(waiting):
            yield from ((owner, *found) for _, found in sorted(waiting[owner].items()))

    def missing(self) -> str | None:
        """A message that names the missing sequence numbers; None where no event is held."""
        if not self._waiting:
            return None
        owner = self.owners()[0]
        sequence, number = self._sequences[owner], min(self._waiting[owner])
        waiting = self._waiting[owner][number]
        others = len(self._waiting) - 1
        numbers = f"number {sequence + 1}" if number == sequence + 2 else f"numbers {sequence + 1} to {number - 1}"
        return (
            f"own events of {owner.aggregate} {owner.key} are not on the log: it has {waiting.event.type} {waiting.event.id} with "
            f"number {number}{_at(waiting.logged)}, but not {numbers}"
            + (f"; {others} other aggregates have gaps, too" if others else "")
        )


def _another(owner: Ref, event: Event, logged: Logged | None, ours: str) -> OtherWriter:
    return OtherWriter(
        f"own event {event.type} {event.id}{_at(logged)} has number {event.sequence} of {owner.aggregate} {owner.key}, "
        f"which another own event has already, {ours}: another deployment writes as {event.source}, or did so before; "
        "stop it or give it its own cluster, list its events with `neuroweaver audit replay`, and skip each of them with "
        "`neuroweaver partitions step-over`"
    )


def _at(logged: Logged | None) -> str:
    return "" if logged is None else f" at {named(logged[1:])}"
