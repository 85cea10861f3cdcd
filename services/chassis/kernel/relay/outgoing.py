"""Groups the rows of one outbox read into one batch per partition, since a send per record costs far more than the record.

It chooses partitions as aiokafka's own `send` does, so that a key stays on its partition. A partition has at most one batch in
flight: a later batch of the same keys cannot overtake one that the broker refuses.
"""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder

from schemas.bounds import RECORD_BYTES
from services.chassis.kafka.publisher import BATCH_BYTES
from services.chassis.kernel.records import Partition
from services.chassis.kernel.transaction.handover import OutboxRow

_HEADER_BYTES = 61
"""Size of a batch's header."""
_OVERHEAD_BYTES = 32
"""Upper bound of lengths, offsets and times, per record and per header."""
_partition_of = DefaultPartitioner()


class RecordTooLarge(Exception):
    """An event is larger than a record on its topic may be."""

    def __init__(self, topic: str, size: int, limit: int) -> None:
        whose = "the limit of this version" if limit == RECORD_BYTES else f"max.message.bytes of {topic}"
        super().__init__(f"the event has {size} bytes; a record may have at most {limit}, {whose}")


@dataclass
class OutgoingBatch:
    """Outbox rows that are sent together."""

    topic: str
    rows: list[OutboxRow]
    bytes: int = _HEADER_BYTES
    """Upper bound of the size that the broker compares with its limit."""


@dataclass
class Outgoing:
    """Outbox rows in flight, in the order in which they were added."""

    producer: AIOKafkaProducer
    limits: Mapping[str, int] = field(default_factory=dict)
    """Largest batch in bytes, by topic, where it is known to be less than ours."""
    batches: list[tuple[OutgoingBatch, Awaitable[object]]] = field(default_factory=list)
    """Batches passed to the producer, each with the awaitable of its acknowledgement."""
    _open: dict[Partition, tuple[BatchBuilder, OutgoingBatch]] = field(default_factory=dict)
    _full: set[Partition] = field(default_factory=set)
    _partitions: dict[str, list[int]] = field(default_factory=dict)

    async def add(self, row: OutboxRow) -> bool:
        """Add `row` to its partition's batch; False if that is full: then later rows of its key must wait too.

        Raises RecordTooLarge and the broker's errors.
        """
        topic, key, (value, headers) = row.topic, row.key.encode(), row.record
        size = len(key) + len(value) + sum(len(name) + len(held) for name, held in headers)
        size += _OVERHEAD_BYTES * (1 + len(headers))
        limit = self.limits.get(topic, RECORD_BYTES)
        if size + _HEADER_BYTES > limit:
            raise RecordTooLarge(topic, size + _HEADER_BYTES, limit)
        if topic not in self._partitions:
            self._partitions[topic] = sorted(await self.producer.partitions_for(topic))
        partition = topic, _partition_of(key, self._partitions[topic], ())
        if partition in self._full:
            return False
        if partition not in self._open:
            self._open[partition] = self._builder(topic), OutgoingBatch(topic, [])
        builder, batch = self._open[partition]
        if builder.append(timestamp=None, key=key, value=value, headers=headers) is None:
            self._full.add(partition)
            return False
        batch.rows.append(row)
        batch.bytes += size
        return True

    async def finish(self) -> None:
        """Pass all batches to the producer. Raises the broker's errors."""
        for (topic, number), (builder, batch) in self._open.items():
            builder.close()
            self.batches.append((batch, await self.producer.send_batch(builder, topic, partition=number)))
        self._open.clear()

    def _builder(self, topic: str) -> BatchBuilder:
        limit = self.limits.get(topic, BATCH_BYTES)
        return self.producer.create_batch() if limit >= BATCH_BYTES else BatchBuilder(limit, 0)
