"""Measures the lag of partitions and reports one that has records but makes no progress, which no error or dead letter shows.

It measures progress per partition, not whether the broker answers: a batch that the client cannot read, or an open transaction
of another producer, stops a partition without an error. Transaction markers and aborted records are not readable: a partition is
at its end when the client has reached the end and every record that it returned is applied.
"""

import asyncio
import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from schemas.topics import CATALOGUE
from services.chassis.kernel import metrics
from services.chassis.kernel.records import Partition
from services.chassis.process.health import Health

_LOOK_SECONDS = 5.0
_ANSWER_SECONDS = 5.0
STUCK_SECONDS = 30.0
KNOWN_SECONDS = 15.0
"""How old the broker's last answer about end offsets may be before the lag counts as unknown."""
LOSSY_SECONDS = 300.0
"""The same as `STUCK_SECONDS` for topics with a limited retention."""
_LOSSY = frozenset(topic.name for topic in CATALOGUE if not topic.lasts)


@dataclass(frozen=True, slots=True)
class Seen:
    """The progress of a partition at the last look."""

    position: int
    reached: int
    """The highest offset up to which it was read or applied."""
    behind_since: float | None
    """Monotonic time since which it has records and makes no progress; None where it is at its end."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a partition is read and applied, and where it ends."""

    position: int
    """First offset that is not applied."""
    read: int
    """First offset that the client has not passed."""
    waits: bool
    """Whether records that the client returned are still to be applied."""
    stable: int
    """The last stable offset: the first that cannot be read yet."""
    end: int
    """First offset that is not written."""

    @property
    def behind(self) -> bool:
        """Whether there are records to read or to apply."""
        return self.waits or max(self.read, self.position) < max(self.end, self.stable)


def look_at(seen: Seen | None, reach: Reach, now: float) -> Seen:
    """Return the progress of a partition after another look: the time restarts when it has moved, or was at its end."""
    if seen is None or reach.position < seen.position:  # new, or another log begins
        seen = Seen(reach.position, reach.position, None)
    reached = max(seen.reached, reach.read, reach.position)  # what is read again after a seek is no progress
    if not reach.behind:
        return Seen(reach.position, reached, None)
    stands = seen.behind_since is not None and seen.reached == reached
    return Seen(reach.position, reached, seen.behind_since if stands else now)


def stuck(partition: Partition, reach: Reach, seen: Seen, now: float) -> str | None:
    """Return the message about a partition that has made no progress for too long; None for any other."""
    if seen.behind_since is None or now - seen.behind_since <= (LOSSY_SECONDS if partition[0] in _LOSSY else STUCK_SECONDS):
        return None
    said = (
        f"{partition[0]}:{partition[1]} makes no progress at offset {reach.position}, {reach.end - reach.position} "
        "before its end"
    )
    if not reach.waits and reach.read >= reach.stable and reach.stable < reach.end:
        return (
            f"{said}: another program's transaction is open from offset {reach.stable}, and no record after it can be read"
        )
    return said


@dataclass
class LagWatch:
    """Watches the assigned partitions of one consumer."""

    service: str
    health: Health
    _stable: Mapping[TopicPartition, int] = field(default_factory=dict)
    _known_at: float = float("-inf")
    """When the broker last reported the end offsets."""
    _looked_at: float = float("-inf")
    _seen: dict[Partition, Seen] = field(default_factory=dict)

    async def look(
        self,
        consumer: AIOKafkaConsumer,
        positions: Mapping[Partition, int],
        waiting: Mapping[Partition, float],
        held: Collection[Partition],
    ) -> None:
        """Measure the lag. `positions`: next offset by partition; `waiting`: time of the oldest record known to wait,
        seconds since 1970; `held`: stopped partitions, which are reported elsewhere. While the broker does not report end
        offsets, the lag of partitions that may be at their end is unknown: the metric is NaN, and the condition `moving` is
        false."""
        await self._read_ends(consumer, positions)
        now = time.monotonic()
        known = not positions or now - self._known_at <= KNOWN_SECONDS
        said = [] if known else ["the lag is unknown: the broker does not report the ends of the partitions"]
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
        """None for a partition that is not assigned any more, or of which nothing is known yet."""
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
        except (TimeoutError, KafkaError, OSError):  # the last known ends stay
            return
