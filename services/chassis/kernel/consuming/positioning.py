"""Seeks assigned partitions to the database's positions, and stops those that must not be read or cannot be handled."""

import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis.kernel import metrics
from services.chassis.kernel.consuming.assignment import Assignment
from services.chassis.kernel.consuming.identity.examine import PartitionStop
from services.chassis.kernel.consuming.identity.guard import LogGuard
from services.chassis.kernel.consuming.reporting import report_handling
from services.chassis.kernel.consuming.seeking import starting_points
from services.chassis.kernel.records import Partition
from services.chassis.process.health import Health
from services.chassis.process.logging import get_logger
from services.chassis.process.transient import pause_before

_log = get_logger(__name__)
_LONGEST_STOP_SECONDS = 60.0


@dataclass
class Positioner:
    """Seeks and stops the partitions of one assignment."""

    service: str
    engine: AsyncEngine
    health: Health
    assignment: Assignment
    guard: LogGuard
    admit: Callable[[], Awaitable[str]]
    """Raises OtherDeployment, and any error that prevents the check for one."""
    _admitted: int = 0
    """The assignment's `joins` at the last successful `admit`; nothing is read before they are equal."""

    async def seek(self, consumer: AIOKafkaConsumer, partitions: Iterable[Partition], *, by_poller: bool) -> None:
        """Seek to the database's positions; records of these partitions are accepted only after that.

        Reading of a partition begins only here: one that must not be read is stopped, with the reason. Raises NoIdentity and the
        database's and the broker's errors.
        """
        before = self.assignment.epochs(partitions)
        if not before:
            return
        if (joins := self.assignment.joins) != self._admitted:
            await self.admit()
            self._admitted = joins
        found = await starting_points(self.engine, self.service, consumer, before)
        stops = {partition: one.stop for partition, one in found.items() if one.stop is not None}
        believed = self.guard.believed(before, stops)
        for partition, epoch in before.items():
            if self.assignment.epoch_of(partition) != epoch:  # revoked, or sought by the other task meanwhile
                continue
            if why := believed.get(partition):
                self.stop(consumer, partition, why)
            elif partition not in stops:  # otherwise it stays unsought and is checked again
                self.seek_to(consumer, partition, found[partition].position, by_poller=by_poller)

    def seek_to(self, consumer: AIOKafkaConsumer, partition: Partition, offset: int, *, by_poller: bool) -> None:
        """Seek to `offset` and read on from there; nothing happens if the partition is no longer assigned."""
        try:
            consumer.seek(TopicPartition(*partition), offset)
            consumer.resume(TopicPartition(*partition))
        except IllegalStateError:  # no longer assigned; the rebalance listener is about to be called
            return
        cursors, epoch = self.assignment.cursors, self.assignment.next_epoch()
        cursors[partition] = cursors[partition].sought(offset, epoch, by_poller=by_poller)

    def stop(self, consumer: AIOKafkaConsumer, partition: Partition, why: PartitionStop) -> None:
        """Accept no records of this partition for a while, longer each time; then it is sought like a new one."""
        cursor = self.assignment.cursors.get(partition)
        if cursor is None:
            return
        wait = pause_before(cursor.trouble.stops + 1 if cursor.trouble else 1, 1.0, _LONGEST_STOP_SECONDS)
        self.assignment.cursors[partition] = cursor.stopped(why, time.monotonic() + wait, self.assignment.next_epoch())
        with suppress(IllegalStateError):
            consumer.pause(TopicPartition(*partition))
        metrics.FAILURES.labels(self.service, partition[0]).inc()
        known = cursor.trouble is not None and cursor.trouble.why.reason == why.reason
        log = _log.debug if known else _log.error  # health and metrics repeat it
        log(
            "a partition stopped and is retried later",
            partition=partition,
            retry_seconds=round(wait, 1),
            cause=why.cause,
            error=why.reason,
        )
        report_handling(self.service, self.health, self.assignment)
