"""Own events that come back from the log wait for each other, for nothing waits for them: a batch of their own would keep others waiting.

A service knows an event of its own since it was decided; when it comes back, only its place is noted. At a high rate most of what is
read is that. So a partition of which the client has taken nothing but own events, up to its end, is held for a moment, while other
partitions are handed over at once. Within a partition the order never changes: what is held lies before whatever is taken next, and
what follows it is handed over with it, in one piece only where no offset lies between; else as two, of which each is judged alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from services.chassis.kernel.records import Record, is_numbered, is_of

HOLD_SECONDS = 0.1
"""So long an own event waits at most: ten batches a second are few, and nobody who looks at a position sees the difference."""
HELD_BYTES = 1024 * 1024
"""Values of held records that are not let grow further: as much as one fetch of one partition."""

Taken = Mapping[TopicPartition, list[Record]]


@dataclass
class Holding:
    """What one client has taken and not handed over."""

    source: str
    """`ce_source` of the service's own events."""
    _held: dict[TopicPartition, list[Record]] = field(default_factory=dict)
    _until: float = 0.0
    """When all that is held is handed over; of no meaning where nothing is."""

    @property
    def count(self) -> int:
        """How many records are held."""
        return sum(map(len, self._held.values()))

    @property
    def until(self) -> float | None:
        """When all that is held is due; None where nothing is held."""
        return self._until if self._held else None

    def first(self, partition: TopicPartition) -> int | None:
        """The lowest offset that is held; None where nothing is held."""
        held = self._held.get(partition)
        return held[0].offset if held else None

    def drop(self, partition: TopicPartition) -> None:
        """Forget what is held of a partition that is read anew."""
        self._held.pop(partition, None)

    def drop_all(self) -> None:
        """Forget everything: the partitions were taken away, or are all read anew."""
        self._held.clear()

    def hand_over(
        self, taken: Taken, end: Callable[[TopicPartition], int | None], now: float, most: int
    ) -> dict[TopicPartition, list[Record]]:
        """What is to be handled now, of what was held and what the client has just `taken`; the rest is held.

        `end`: the offset up to which a partition can be read, as far as that is known. `most`: so many records are held at most.
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
