"""Why: a partition that has records and does not move is the one fault that nothing else shows: no error, no dead letter.

What is measured is progress per partition, not whether the broker answers: a batch that the client cannot read, or an
outsider's transaction that stays open, stops a partition in silence.
"""

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from services.chassis import metrics
from services.chassis.health import Health
from services.chassis.records import Partition

_LOOK_SECONDS = 5.0
STUCK_SECONDS = 30.0


@dataclass
class _Seen:
    next_offset: int
    moved_at: float


@dataclass
class LagWatch:
    """Watches the assigned partitions of one consumer."""

    service: str
    health: Health
    _ends: Mapping[TopicPartition, int] = field(default_factory=dict)
    _looked_at: float = float("-inf")
    _seen: dict[Partition, _Seen] = field(default_factory=dict)

    async def look(
        self,
        consumer: AIOKafkaConsumer,
        positions: Mapping[Partition, int],
        waiting: Mapping[Partition, float],
        held: Collection[Partition],
    ) -> None:
        """Measure. `positions`: next offset by partition; `waiting`: time of the oldest record known to wait, seconds since
        1970; `held`: partitions whose standstill is reported elsewhere."""
        await self._read_ends(consumer, positions)
        now = time.monotonic()
        stuck = []
        for partition, position in positions.items():
            seen = self._seen.get(partition)
            if seen is None or seen.next_offset != position:
                seen = self._seen[partition] = _Seen(position, now)
            behind = self._ends.get(TopicPartition(*partition), 0) - position
            since = waiting.get(partition, time.time() - (now - seen.moved_at))
            age = max(0.0, time.time() - since) if behind > 0 else 0.0
            metrics.LAG_SECONDS.labels(self.service, partition[0], str(partition[1])).set(age)
            if behind > 0 and partition not in held and now - seen.moved_at > STUCK_SECONDS:
                stuck.append(f"{partition[0]}:{partition[1]} stands at offset {position}, {behind} before its end")
        for gone in self._seen.keys() - positions.keys():
            del self._seen[gone]
        self.health.report("moving", not stuck, "; ".join(stuck))

    async def _read_ends(self, consumer: AIOKafkaConsumer, positions: Mapping[Partition, int]) -> None:
        if time.monotonic() - self._looked_at < _LOOK_SECONDS or not positions:
            return
        self._looked_at = time.monotonic()
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                self._ends = await consumer.end_offsets([TopicPartition(*partition) for partition in positions])
        except (TimeoutError, KafkaError, OSError):  # the broker is away: its condition says so
            self._ends = {}
