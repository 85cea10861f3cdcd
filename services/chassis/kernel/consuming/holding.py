"""Holds back own events that return from the log, so that they are applied in few, larger batches and delay nothing else.

A service has folded an own event when it decided it; when the event returns, only its offset is stamped. At a high rate most records
are of this kind. So a partition of which the client has fetched only own events, up to its end, is held for a moment, while other
partitions are returned at once. Within a partition the order never changes: held records come before whatever is fetched next. Both
are returned together as one run only where their offsets are contiguous; otherwise as two runs, which are checked separately.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from services.chassis.kernel.records import Record, is_numbered, is_of

HOLD_SECONDS = 0.1
"""The longest that an own event is held: it limits these batches to ten a second, and the delay of a position is not noticeable."""
HELD_BYTES = 1024 * 1024
"""All held records are returned when their values reach this size, that of one fetch of one partition."""

Taken = Mapping[TopicPartition, list[Record]]


@dataclass
class Holding:
    """The records that one client has fetched and not returned yet."""

    source: str
    """`ce_source` of the service's own events."""
    _held: dict[TopicPartition, list[Record]] = field(default_factory=dict)
    _until: float = 0.0
    """When all held records are returned; meaningless where none is held."""

    @property
    def count(self) -> int:
        """How many records are held."""
        return sum(map(len, self._held.values()))

    @property
    def until(self) -> float | None:
        """When all held records are due; None where none is held."""
        return self._until if self._held else None

    def first(self, partition: TopicPartition) -> int | None:
        """Return the lowest held offset of a partition; None where none is held."""
        held = self._held.get(partition)
        return held[0].offset if held else None

    def drop(self, partition: TopicPartition) -> None:
        """Drop the held records of a partition that is read again."""
        self._held.pop(partition, None)

    def drop_all(self) -> None:
        """Drop all held records: the partitions were revoked, or are all read again."""
        self._held.clear()

    def hand_over(
        self, taken: Taken, end: Callable[[TopicPartition], int | None], now: float, most: int
    ) -> dict[TopicPartition, list[Record]]:
        """Returns the records to handle now, of the held ones and those that the client has just `taken`; the rest is held.

        `end`: the offset up to which a partition can be read, if known. `most`: the largest number of records to hold.
        """
        if not self._held:
            self._until = now + HOLD_SECONDS
        apart: dict[TopicPartition, list[Record]] = {}
        ready: set[TopicPartition] = set()
        for partition, records in taken.items():
            held = self._held.setdefault(partition, [])
            if held and held[-1].offset + 1 != records[0].offset:
                apart[partition], self._held[partition] = held, list(records)
                continue
            held += records
            if (end(partition) or 0) > records[-1].offset + 1 or not all(map(self._can_wait, records)):
                ready.add(partition)
        if now >= self._until or self.count >= most or self._bytes() >= HELD_BYTES:
            ready |= self._held.keys()
        if apart:
            self._until = now
        return apart | {partition: self._held.pop(partition) for partition in ready - apart.keys()}

    def _can_wait(self, record: Record) -> bool:
        return is_of(record, self.source) and is_numbered(record)

    def _bytes(self) -> int:
        return sum(len(record.value or b"") for records in self._held.values() for record in records)
