"""A partition that has records and does not move is the one fault that nothing else shows: no error, no dead letter.

What is measured is progress per partition, not whether the broker answers: a batch that the client cannot read, or an
outsider's transaction that stays open, stops a partition in silence. A transaction's marker and what was aborted are nothing to
read: a partition is at its end where the client has come to it and nothing that it handed over is still to be applied.
"""

import asyncio
import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from schemas.topics import CATALOGUE
from services.chassis.kernel.records import Partition
from services.chassis.process import metrics
from services.chassis.process.health import Health

_LOOK_SECONDS = 5.0
_ANSWER_SECONDS = 5.0
STUCK_SECONDS = 30.0
KNOWN_SECONDS = 15.0
"""So old the ends that a broker said may be: until then it is not away."""
LOSSY_SECONDS = 300.0
"""A topic that is not kept for ever may stand for so long."""
_LOSSY = frozenset(topic.name for topic in CATALOGUE if topic.retention_ms is not None)


@dataclass(frozen=True, slots=True)
class Seen:
    """A partition when it was last looked at."""

    position: int
    reached: int
    """The highest offset to which it was read or applied since then."""
    behind_since: float | None
    """Monotonic time since which there is something to read and it is not read; None where there is nothing."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a partition is read, and how far it goes."""

    position: int
    """First offset that is not applied."""
    read: int
    """First offset that the client has not passed."""
    waits: bool
    """Whether records that the client handed over are still to be applied."""
    stable: int
    """First offset that nobody may read yet."""
    end: int
    """First offset that is not written."""

    @property
    def behind(self) -> bool:
        """Whether there is something to read or to apply."""
        return self.waits or max(self.read, self.position) < max(self.end, self.stable)


def look_at(seen: Seen | None, reach: Reach, now: float) -> Seen:
    """What is known of a partition after another look: time counts anew when it has moved, or was at its end."""
    if seen is None or reach.position < seen.position:  # new, or another log begins
        seen = Seen(reach.position, reach.position, None)
    reached = max(seen.reached, reach.read, reach.position)  # what is read again after a seek is no progress
    if not reach.behind:
        return Seen(reach.position, reached, None)
    stands = seen.behind_since is not None and seen.reached == reached
    return Seen(reach.position, reached, seen.behind_since if stands else now)


def stuck(partition: Partition, reach: Reach, seen: Seen, now: float) -> str | None:
    """What to say of a partition that has not moved for too long."""
    if seen.behind_since is None or now - seen.behind_since <= (LOSSY_SECONDS if partition[0] in _LOSSY else STUCK_SECONDS):
        return None
    said = f"{partition[0]}:{partition[1]} stands at offset {reach.position}, {reach.end - reach.position} before its end"
    if not reach.waits and reach.read >= reach.stable and reach.stable < reach.end:
        return (
            f"{said}: another program's transaction is open from offset {reach.stable}, and nothing behind it can be read"
        )
    return said


@dataclass
class LagWatch:
    """Watches the assigned partitions of one consumer."""

    service: str
    health: Health
    _stable: Mapping[TopicPartition, int] = field(default_factory=dict)
    _known_at: float = float("-inf")
    """When the broker last said where the partitions end."""
    _looked_at: float = float("-inf")
    _seen: dict[Partition, Seen] = field(default_factory=dict)

    async def look(
        self,
        consumer: AIOKafkaConsumer,
        positions: Mapping[Partition, int],
        waiting: Mapping[Partition, float],
        held: Collection[Partition],
    ) -> None:
        """Measure. `positions`: next offset by partition; `waiting`: time of the oldest record known to wait, seconds since
        1970; `held`: partitions whose standstill is reported elsewhere. While the broker does not say where partitions end, the lag
        of those that may be at their end is not known: the metric is NaN, and the condition does not hold."""
        await self._read_ends(consumer, positions)
        now = time.monotonic()
        known = not positions or now - self._known_at <= KNOWN_SECONDS
        said = [] if known else ["it is not known how far the partitions go: the broker does not say where they end"]
        for partition, position in positions.items():
            reach = await self._reach(consumer, partition, position, partition in waiting)
            if reach is None:
                continue
            seen = self._seen[partition] = look_at(self._seen.get(partition), reach, now)
            since = waiting.get(partition, time.time() - (now - (seen.behind_since or now)))
            at_its_end = 0.0 if known else math.nan
            age = max(0.0, time.time() - since) if reach.behind else at_its_end
            metrics.LAG_SECONDS.labels(self.service, partition[0], str(partition[1])).set(age)
            if partition not in held and (reason := stuck(partition, reach, seen, now)):
                said.append(reason)
        for gone in self._seen.keys() - positions.keys():
            del self._seen[gone]
            metrics.LAG_SECONDS.remove(self.service, gone[0], str(gone[1]))
        self.health.report("moving", not said, "; ".join(said))

    async def _reach(self, consumer: AIOKafkaConsumer, partition: Partition, position: int, waits: bool) -> Reach | None:
        """None for a partition that is no longer ours, or of which nothing is known yet."""
        wanted = TopicPartition(*partition)
        try:
            async with asyncio.timeout(1):
                read = await consumer.position(wanted)
        except (TimeoutError, IllegalStateError):
            return None
        if wanted not in consumer.assignment():
            return None
        fetched = consumer.highwater(wanted) or 0
        stable = max(self._stable.get(wanted, 0), consumer.last_stable_offset(wanted) or 0)
        return Reach(position, read, waits, stable, max(stable, fetched))

    async def _read_ends(self, consumer: AIOKafkaConsumer, positions: Mapping[Partition, int]) -> None:
        if time.monotonic() - self._looked_at < _LOOK_SECONDS or not positions:
            return
        self._looked_at = time.monotonic()
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                self._stable = await consumer.end_offsets([TopicPartition(*partition) for partition in positions])
            self._known_at = time.monotonic()
        except (TimeoutError, KafkaError, OSError):  # what it said last is what is known
            return
