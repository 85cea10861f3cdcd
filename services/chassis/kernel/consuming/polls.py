"""Applies the polls of one consumer: accepts the records that follow, and applies each attempt in one transaction.

A partition whose records were not all applied is sought again before it is read on, whatever happened.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer

from services.chassis.kernel import metrics
from services.chassis.kernel.aggregate import Domain
from services.chassis.kernel.consuming.assignment import Assignment
from services.chassis.kernel.consuming.identity.examine import PartitionStop
from services.chassis.kernel.consuming.isolation import BatchAttempt, Isolation, StoppedPartition, cause_of
from services.chassis.kernel.consuming.positioning import Positioner
from services.chassis.kernel.consuming.reporting import note, report_handling
from services.chassis.kernel.consuming.seeking import own_gaps
from services.chassis.kernel.deadletters.limit import DeadLetterLimit
from services.chassis.kernel.effects import Effects
from services.chassis.kernel.records import Partition, Record
from services.chassis.kernel.transaction.batch import Decider, Poll, Records, apply_batch
from services.chassis.kernel.transaction.handover import Handover
from services.chassis.kernel.transaction.own_events import OwnEvents
from services.chassis.postgres.transactions import Transactional
from services.chassis.process.health import Health
from services.chassis.process.logging import get_logger
from services.chassis.process.repeated_failures import FailureLog
from services.chassis.process.transient import Backoff, described

_log = get_logger(__name__)


@dataclass
class PollHandler:
    """Applies what the client hands over for one assignment."""

    service: str
    domain: Domain
    effects: Effects | None
    batches: Transactional
    """What the transactions of batches run on."""
    health: Health
    limit: DeadLetterLimit
    assignment: Assignment
    positioner: Positioner
    handover: Handover
    """Where the relay of this process takes own events from."""
    backoff: Backoff = field(default_factory=Backoff)
    _own: OwnEvents = field(default_factory=OwnEvents)
    _failures: FailureLog = field(default_factory=lambda: FailureLog(_log))

    async def handle(self, consumer: AIOKafkaConsumer, records: tuple[Record, ...]) -> None:
        """Apply one poll. In any case a partition whose records were not all applied is sought again before it is read on."""
        groups = _by_partition(records)
        judged = self.assignment.epochs(groups)
        metrics.CONSUMED.labels(self.service).inc(len(records))
        wait = 0.0
        try:
            await self._apply(consumer, await self._accept(consumer, groups), groups)
        except Exception as error:
            wait = self._failed(error)
        finally:
            after, cursors = self.assignment.next_epoch(), self.assignment.cursors
            for partition, epoch in judged.items():
                if (cursor := cursors.get(partition)) and cursor.epoch == epoch:
                    cursors[partition] = cursor.ended(groups[partition][-1].offset + 1, after)
        if wait:
            await asyncio.sleep(wait)

    async def _accept(self, consumer: AIOKafkaConsumer, groups: Records) -> dict[Partition, int]:
        """The partitions whose records follow without a gap, each with its epoch; records of the others are not applied.

        From here on no cursor has a licence: if this check or any part of the poll fails, the next jump counts as a gap.
        """
        assignment = self.assignment
        steps = {
            p: (cursor, cursor.step(group[0].offset))
            for p, group in groups.items()
            if (cursor := assignment.cursors.get(p))
        }
        assignment.cursors |= {partition: cursor.judged() for partition, (cursor, _) in steps.items()}
        jumps = {p: cursor.next_offset or 0 for p, (cursor, step) in steps.items() if step == "jump"}
        follow = {p for p, (_, step) in steps.items() if step == "next"} | await own_gaps(consumer, jumps)
        accepted: dict[Partition, int] = {}
        doubted: list[Partition] = []
        for partition, (cursor, _) in steps.items():
            if assignment.epoch_of(partition) != cursor.epoch or cursor.state == "stopped":
                continue
            if partition in follow:
                assignment.cursors[partition] = cursor.accept(groups[partition][0].timestamp / 1000)
                accepted[partition] = cursor.epoch
            else:
                doubted.append(partition)
        await self.positioner.seek(consumer, doubted, by_poller=True)
        return accepted

    async def _apply(self, consumer: AIOKafkaConsumer, epochs: Mapping[Partition, int], groups: Records) -> None:
        """Apply all records that can be applied; `epochs` are those under which they were accepted. Raises transient errors."""
        isolation = Isolation(self.domain, {partition: groups[partition] for partition in epochs})
        while attempt := isolation.next():
            if attempt.pause_seconds:
                await asyncio.sleep(attempt.pause_seconds)
            try:
                await self._transaction(consumer, attempt, epochs)
            except Exception as error:
                if stopped := isolation.failed(attempt, error):
                    self._stop(consumer, stopped)
            else:
                isolation.applied(self.assignment.changed(epochs))
        self.backoff.reset()
        self._failures.recovered()

    async def _transaction(
        self, consumer: AIOKafkaConsumer, attempt: BatchAttempt, epochs: Mapping[Partition, int]
    ) -> None:
        """Apply records in one transaction, without those of partitions that were sought again meanwhile."""
        assignment = self.assignment
        records = {p: group for p, group in attempt.records.items() if assignment.epoch_of(p) == epochs[p]}
        if not records:
            return
        starts = {partition: assignment.cursors[partition].next_offset or 0 for partition in records}
        decider = Decider(self.batches, self.domain, self.effects, self.limit, self._own, self.handover)
        with metrics.BATCH_SECONDS.labels(self.service).time():
            done = await apply_batch(decider, Poll(records, starts, attempt.failed))
        note(self.service, done)
        assignment.fault = ""
        for partition, group in records.items():
            if assignment.epoch_of(partition) != epochs[partition]:  # revoked meanwhile
                continue
            if partition in done.behind:
                self.positioner.seek_to(consumer, partition, done.behind[partition], by_poller=True)
            else:
                assignment.cursors[partition] = assignment.cursors[partition].applied(group[-1].offset + 1)
        report_handling(self.service, self.health, assignment)

    def _stop(self, consumer: AIOKafkaConsumer, stopped: StoppedPartition) -> None:
        """Stop the partition at its position because a record cannot be handled."""
        cursor, failure = self.assignment.cursors.get(stopped.partition), stopped.failure
        if cursor is not None and cursor.next_offset is not None:
            why = PartitionStop(cause_of(failure), cursor.next_offset, None, described(failure))
            self.positioner.stop(consumer, stopped.partition, why)

    def _failed(self, error: Exception) -> float:
        """Report that a poll was not applied; returns the seconds to wait."""
        wait = self.backoff.next()
        self.assignment.fault = described(error)
        report_handling(self.service, self.health, self.assignment)
        self._failures.failed("batch not applied; trying again", error)
        return wait


def _by_partition(records: Iterable[Record]) -> dict[Partition, list[Record]]:
    groups: dict[Partition, list[Record]] = {}
    for record in records:
        groups.setdefault((record.topic, record.partition), []).append(record)
    return groups
