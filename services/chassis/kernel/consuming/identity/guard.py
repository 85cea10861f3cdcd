"""Checks every few seconds, while partitions are read, that the log is still the same and that no unread records were removed.

Nothing tells a consumer that a topic was deleted and recreated: its client goes on at the same offset of another log. So every
replica asks the cluster every few seconds, reports the result in health, log and metrics, and stores it beside the positions for
readers that do not ask the service. Records of another log that were read in these seconds are not lost: once that log is accepted
it is read from its beginning, where duplicates are recognised.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis.kafka.metadata import FoundLog, NoIdentity
from services.chassis.kernel import metrics, store
from services.chassis.kernel.consuming import seeking
from services.chassis.kernel.consuming.cursor import PartitionCursor
from services.chassis.kernel.consuming.identity import rows
from services.chassis.kernel.consuming.identity.examine import Cause, KeptLog, PartitionStop, another_log, stops_of
from services.chassis.kernel.consuming.identity.moving import LOSSY
from services.chassis.kernel.records import Partition
from services.chassis.process.health import Health

LOOK_SECONDS = 2.0
_ANSWER_SECONDS = 10.0
_SURE_SECONDS = 2 * LOOK_SECONDS
"""How long every check must find that a log ends below the position: a partition's new leader does not know its end at once."""
_OTHER_LOGS: frozenset[Cause] = frozenset({"another log", "beyond the end", "gone", "unknown"})


@dataclass(frozen=True, slots=True)
class LogCheck:
    """The result of a check of the partitions of one consumer."""

    stops: Mapping[Partition, PartitionStop]
    """Partitions that are read and must be stopped."""
    doubted: frozenset[Partition]
    """Partitions to seek again: their stop has ended, or their topic has limited retention and continues by itself."""


NOTHING = LogCheck({}, frozenset())


@dataclass
class LogGuard:
    """Checks the log that one consumer reads."""

    service: str
    topics: Sequence[str]
    engine: AsyncEngine
    health: Health
    _looked_at: float = float("-inf")
    _topics_said: Mapping[str, str] = field(default_factory=dict)
    """The fault of each topic that is wrong as a whole."""
    _known: bool = False
    """Whether a check has succeeded."""
    _noted: tuple[Mapping[Partition, PartitionStop], frozenset[Partition]] | None = None
    """The stops stored in the database, and the partitions they were stored for; None for unknown."""
    _beyond: dict[Partition, float] = field(default_factory=dict)
    """Monotonic time since which every check found that a partition ends below its position."""
    _lost: set[Partition] = field(default_factory=set)
    """Partitions for which the metric of removed records is set."""

    async def look(self, consumer: AIOKafkaConsumer, cursors: Mapping[Partition, PartitionCursor]) -> LogCheck:
        """Check the log if a check is due. Raises the database's errors; an absent broker is reported elsewhere."""
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return NOTHING
        self._looked_at = time.monotonic()
        now = {p: cursor.next_offset or 0 for p, cursor in cursors.items() if cursor.state in ("sought", "reading")}
        stopped = {p: cursor.trouble.why for p, cursor in cursors.items() if cursor.state == "stopped" and cursor.trouble}
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                found = await seeking.which_log(consumer, self.topics)
                spans = await seeking.spans_of(consumer, found, now.keys() | stopped.keys())
        except NoIdentity as error:
            self._topics_said, self._known = dict.fromkeys(self.topics, str(error)), True
            return NOTHING
        except (TimeoutError, KafkaError, OSError):
            return NOTHING
        async with self.engine.connect() as connection:
            kept, positions = await rows.kept(connection), await store.positions(connection)
        self._topics_said = _said(self.topics, kept, found)
        there = {partition: positions.get(partition, 0) for partition in stopped}
        still = stops_of(self.service, there, kept, found, spans)
        mended = frozenset(p for p, why in stopped.items() if _is_mended(why, there[p], still.get(p)))
        self._known = True
        stops = stops_of(self.service, now, kept, found, spans)
        for gone in self._beyond.keys() - cursors.keys():
            del self._beyond[gone]
        stops = self.believed(now, stops)
        lossy = frozenset(partition for partition in stops if partition[0] in LOSSY)
        return LogCheck({partition: why for partition, why in stops.items() if partition not in lossy}, mended | lossy)

    def believed(
        self, looked_at: Collection[Partition], stops: Mapping[Partition, PartitionStop]
    ) -> dict[Partition, PartitionStop]:
        """Those of `stops`, found by a check of these partitions, that are certain: a new leader may report a low end for a moment."""
        now = time.monotonic()
        for partition in looked_at:
            if partition in stops and stops[partition].cause == "beyond the end":
                self._beyond.setdefault(partition, now)
            else:
                self._beyond.pop(partition, None)
        return {p: why for p, why in stops.items() if now - self._beyond.get(p, float("-inf")) >= _SURE_SECONDS}

    @property
    def doubt(self) -> str:
        """Return a message about the stops that are not certain yet; empty if there are none."""
        now = time.monotonic()
        return "; ".join(
            f"{topic}:{number} seems to end below the position; it is checked again"
            for (topic, number), since in sorted(self._beyond.items())
            if now - since < _SURE_SECONDS
        )

    def report(self, cursors: Mapping[Partition, PartitionCursor]) -> dict[Partition, PartitionStop]:
        """Report the stopped partitions in health and metrics; returns them."""
        stops = {p: cursor.trouble.why for p, cursor in cursors.items() if cursor.trouble is not None}
        self._say(stops)
        return stops

    async def write_down(self, cursors: Mapping[Partition, PartitionCursor]) -> None:
        """Store which partitions are stopped, where that has changed. Raises the database's errors."""
        stops = self.report(cursors)
        known = frozenset(p for p, cursor in cursors.items() if cursor.trouble is not None or cursor.state != "unsought")
        if self._noted == (stops, known):
            return
        self._noted = None
        async with self.engine.begin() as connection:
            noted = {p: one.stop for p, one in (await rows.stored_stops(connection)).items() if p in known}
            await rows.store_stops(connection, {p: why for p, why in stops.items() if noted.get(p) != why})
            await rows.delete_stops(connection, noted.keys() - stops.keys())
        self._noted = stops, known

    def _say(self, stops: Mapping[Partition, PartitionStop]) -> None:
        if not self._known:  # no check has succeeded yet
            return
        others = [why.reason for why in stops.values() if why.cause in _OTHER_LOGS]
        topics = [said for said in self._topics_said.values() if not any(reason.startswith(said) for reason in others)]
        reasons = dict.fromkeys([*topics, *others])
        self.health.report("log", not reasons, "; ".join(reasons)[:2000])
        lost = {partition: why for partition, why in stops.items() if why.cause == "removed"}
        self.health.report("unread", not lost, "; ".join(why.reason for why in lost.values())[:2000])
        for partition in self._lost - lost.keys():
            metrics.UNREAD_REMOVED.remove(self.service, partition[0], str(partition[1]))
        for (topic, number), why in lost.items():
            metrics.UNREAD_REMOVED.labels(self.service, topic, str(number)).set((why.next_offset or 0) - why.offset)
        self._lost = set(lost)


def _said(topics: Sequence[str], kept: Mapping[str, KeptLog], found: FoundLog) -> dict[str, str]:
    differing = {topic: another_log(topic, kept.get(topic), found) for topic in topics if topic not in LOSSY}
    return {topic: why[1] for topic, why in differing.items() if why is not None}


def _is_mended(why: PartitionStop, position: int, now: PartitionStop | None) -> bool:
    """Whether a partition's stop has ended: its position was moved, or the log is again the one that was read."""
    return now is None and (why.offset != position or why.cause not in ("record", "gap"))
