"""Why: what is read from the outbox at once leaves in one batch per partition: a send per record costs far more than the record.

Partitions are those that aiokafka's own `send` would choose, so that a key stays where it is.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder
from sqlalchemy import Row

from services.chassis.publisher import RECORD_BYTES
from services.chassis.records import Partition
from services.chassis.store import record_headers

_OVERHEAD_BYTES = 32
"""Lengths, offsets and times of a record and of each header at most."""
_partition_of = DefaultPartitioner()


@dataclass
class Outgoing:
    """Rows of the outbox on their way, in the order in which they were added."""

    producer: AIOKafkaProducer
    batches: list[tuple[Sequence[Row[Any]], Awaitable[object]]] = field(default_factory=list)
    """What was handed over, with what will tell when it is acknowledged."""
    _open: dict[Partition, tuple[BatchBuilder, list[Row[Any]]]] = field(default_factory=dict)
    _partitions: dict[str, list[int]] = field(default_factory=dict)

    async def add(self, row: Row[Any]) -> None:
        """Put `row` into its partition's batch. Raises MessageSizeTooLargeError and the broker's errors."""
        topic, key, value, headers = row.aggregatetype, row.aggregateid.encode(), row.payload.encode(), record_headers(row)
        size = len(key) + len(value) + sum(len(name) + len(held) for name, held in headers)
        if size + _OVERHEAD_BYTES * (1 + len(headers)) > RECORD_BYTES:
            raise MessageSizeTooLargeError(f"the event has {size} bytes; a record may have {RECORD_BYTES}")
        if topic not in self._partitions:
            self._partitions[topic] = sorted(await self.producer.partitions_for(topic))
        partition = topic, _partition_of(key, self._partitions[topic], ())
        while True:
            if partition not in self._open:
                self._open[partition] = self.producer.create_batch(), []
            builder, rows = self._open[partition]
            if builder.append(timestamp=None, key=key, value=value, headers=headers) is not None:
                rows.append(row)
                return
            await self._hand_over(partition)

    async def finish(self) -> None:
        """Hand over what is still open. Raises the broker's errors."""
        for partition in list(self._open):
            await self._hand_over(partition)

    async def _hand_over(self, partition: Partition) -> None:
        builder, rows = self._open.pop(partition)
        builder.close()
        topic, number = partition
        self.batches.append((rows, await self.producer.send_batch(builder, topic, partition=number)))
