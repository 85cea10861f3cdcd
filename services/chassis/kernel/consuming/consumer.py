"""Consumes with FastStream's batch subscriber and applies each poll in one transaction; no record is lost or applied twice.

The database's positions are the truth: the consumer seeks every assigned partition to its position before it accepts a record
of it, and again after any fault; `cursor` decides which records may be accepted. Between the revocation of partitions and the
next assignment there is no cursor, so that nothing is sought or committed for partitions that another member may own.
FastStream passes raw records on (`subscription`); they are decoded inside the transaction's `try`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError
from faststream.kafka import KafkaBroker
from faststream.kafka.subscriber.usecase import BatchSubscriber
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.topics import Topic
from services.chassis.kafka.reach import start
from services.chassis.kernel import metrics
from services.chassis.kernel.aggregate import Domain
from services.chassis.kernel.consuming.cursor import PartitionCursor
from services.chassis.kernel.consuming.identity.examine import PartitionStop
from services.chassis.kernel.consuming.identity.guard import LogGuard
from services.chassis.kernel.consuming.isolation import BatchAttempt, Isolation, StoppedPartition, cause_of
from services.chassis.kernel.consuming.lag import LagWatch
from services.chassis.kernel.consuming.offsets import Offsets
from services.chassis.kernel.consuming.reporting import note
from services.chassis.kernel.consuming.seeking import own_gaps, starting_points
from services.chassis.kernel.consuming.subscription import Subscribed, subscribe
from services.chassis.kernel.deadletters.limit import DeadLetterLimit
from services.chassis.kernel.effects import Effects
from services.chassis.kernel.records import Partition, Record
from services.chassis.kernel.transaction.batch import Decider, Poll, Records, apply_batch
from services.chassis.postgres.transactions import Transactional
from services.chassis.process.health import Health
from services.chassis.process.logging import get_logger
from services.chassis.process.repeated_failures import FailureLog
from services.chassis.process.transient import Backoff, described, pause_before, wait_or_stop
from services.chassis.settings import ServiceSettings

_log = get_logger(__name__)
_UPKEEP_SECONDS = 1.0
_JOINING_SECONDS = 0.1
_LONGEST_STOP_SECONDS = 60.0
_REBALANCE_SECONDS = 2.0
"""How long, beyond the session time-out of a dead member, a rebalance may take before it is reported."""


@dataclass
class Consumer:
    """The consumer in a service's process; `run` consumes until `stop` is set."""

    settings: ServiceSettings
    service: str
    domain: Domain
    effects: Effects | None
    topics: Sequence[Topic]
    engine: AsyncEngine
    batches: Transactional
    """What the transactions of batches run on."""
    health: Health
    admit: Callable[[], Awaitable[str]]
    """Returns the client id to join the group with. Raises OtherDeployment, and any error that prevents the check for one."""
    _joins: int = 0
    """How often the group has assigned partitions to this member."""
    _admitted: int = 0
    """The value of `_joins` at the last successful `admit`; nothing is read before it equals `_joins`."""
    _cursors: dict[Partition, PartitionCursor] = field(default_factory=dict)
    """One per assigned partition; empty while the group rebalances."""
    _epoch: int = 0
    _subscription: int = 0
    """Number of the current subscription; callbacks of an earlier one, which may end late, are ignored."""
    _subscriber: BatchSubscriber | None = None
    _offsets: Offsets = field(default_factory=Offsets)
    _lag: LagWatch = field(init=False)
    _limit: DeadLetterLimit = field(init=False)
    _guard: LogGuard = field(init=False)
    _joined: bool = False
    _revoked_at: float | None = None
    """Monotonic time of the last revocation; None before the first."""
    _fault: str = ""
    """Why the last poll was not applied."""
    _looked_at: float = 0.0
    _backoff: Backoff = field(default_factory=Backoff)
    _failures: FailureLog = field(default_factory=lambda: FailureLog(_log))

    def __post_init__(self) -> None:
        self._lag = LagWatch(self.service, self.health)
        self._guard = LogGuard(self.service, [topic.name for topic in self.topics], self.engine, self.health)
        self._limit = DeadLetterLimit(self.settings.dead_letter_run, self.settings.dead_letter_share)

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop`, then finish the current batch, commit offsets and leave the group."""
        backoff = Backoff()
        while not stop.is_set():
            try:
                client_id = await self.admit()
            except Exception as error:
                self.health.report("consuming", False, described(error))
                await wait_or_stop(stop, backoff.next())
                continue
            broker, self._subscriber = subscribe(
                self.settings,
                self.service,
                client_id,
                self.topics,
                self.domain.source,
                _Subscription(self, self._subscription),
            )
            try:
                await start(broker, self.settings.cluster)
            except (KafkaError, OSError) as error:
                self.health.report("consuming", False, f"the broker is unreachable: {described(error)}")
                await self._leave(broker)
                await wait_or_stop(stop, backoff.next())
                continue
            try:
                seconds = _JOINING_SECONDS
                while not await wait_or_stop(stop, seconds):
                    seconds = await self._upkeep()
            finally:
                await self._leave(broker)

    @property
    def _consumer(self) -> AIOKafkaConsumer | None:
        return self._subscriber.consumer if self._subscriber else None

    async def _leave(self, broker: KafkaBroker) -> None:
        try:
            async with asyncio.timeout(self.settings.drain_seconds + 5):
                if self._consumer is not None:
                    await self._commit(self._consumer)
                await broker.stop()
        except (TimeoutError, KafkaError, OSError) as error:
            _log.warning("consumer did not leave its group in time", error=described(error))
        self._subscriber = None
        self._subscription += 1
        self.revoked()
        self._revoked_at = None

    # assignment and revocation

    def assigned(self, partitions: Iterable[Partition]) -> None:
        """The group assigned exactly these partitions, possibly none. The next poll or upkeep seeks them, outside aiokafka's
        rebalance; records that arrive before that are not accepted."""
        self._epoch += 1
        self._offsets.forget()
        self._cursors = {partition: PartitionCursor(self._epoch) for partition in partitions}
        self._joined = True
        self._joins += 1

    def revoked(self) -> None:
        """This member owns no partition until the next assignment: aiokafka revokes all of them in every rebalance."""
        self._cursors, self._joined, self._fault = {}, False, ""
        self._revoked_at = time.monotonic()
        self._offsets.forget()

    def lost(self) -> None:
        """The client fetched records and did not return them: every partition is sought again."""
        self._epoch += 1
        self._cursors = {partition: cursor.lost(self._epoch) for partition, cursor in self._cursors.items()}

    def unsought(self) -> list[Partition]:
        """Assigned partitions that have to be sought."""
        return sorted(partition for partition, cursor in self._cursors.items() if cursor.state == "unsought")

    # polls

    async def handle(self, records: tuple[Record, ...]) -> None:
        """Apply one poll. In any case a partition whose records were not all applied is sought again before it is read on."""
        consumer = self._consumer
        if consumer is None:
            return
        groups = _by_partition(records)
        judged = {partition: cursor.epoch for partition in groups if (cursor := self._cursors.get(partition))}
        metrics.CONSUMED.labels(self.service).inc(len(records))
        wait = 0.0
        try:
            await self._apply(consumer, await self._accept(consumer, groups), groups)
        except Exception as error:
            wait = self._failed(error)
        finally:
            self._epoch += 1
            for partition, epoch in judged.items():
                if (cursor := self._cursors.get(partition)) and cursor.epoch == epoch:
                    self._cursors[partition] = cursor.ended(groups[partition][-1].offset + 1, self._epoch)
        if wait:
            await asyncio.sleep(wait)

    async def _accept(self, consumer: AIOKafkaConsumer, groups: Records) -> dict[Partition, int]:
        """The partitions whose records follow without a gap, each with its epoch; records of the others are not applied.

        From here on no cursor has a licence: if this check or any part of the poll fails, the next jump counts as a gap.
        """
        steps = {
            p: (cursor, cursor.step(group[0].offset)) for p, group in groups.items() if (cursor := self._cursors.get(p))
        }
        self._cursors |= {partition: cursor.judged() for partition, (cursor, _) in steps.items()}
        jumps = {p: cursor.next_offset or 0 for p, (cursor, step) in steps.items() if step == "jump"}
        follow = {p for p, (_, step) in steps.items() if step == "next"} | await own_gaps(consumer, jumps)
        accepted: dict[Partition, int] = {}
        doubted: list[Partition] = []
        for partition, (cursor, _) in steps.items():
            if self._epoch_of(partition) != cursor.epoch or cursor.state == "stopped":
                continue
            if partition in follow:
                self._cursors[partition] = cursor.accept(groups[partition][0].timestamp / 1000)
                accepted[partition] = cursor.epoch
            else:
                doubted.append(partition)
        await self.seek(consumer, doubted, by_poller=True)
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
                    self._hold(consumer, stopped)
            else:
                isolation.applied(self._changed(epochs))
        self._backoff.reset()
        self._failures.recovered()

    async def _transaction(
        self, consumer: AIOKafkaConsumer, attempt: BatchAttempt, epochs: Mapping[Partition, int]
    ) -> None:
        """Apply records in one transaction, without those of partitions that were sought again meanwhile."""
        records = {p: group for p, group in attempt.records.items() if self._epoch_of(p) == epochs[p]}
        if not records:
            return
        starts = {partition: self._cursors[partition].next_offset or 0 for partition in records}
        decider = Decider(self.batches, self.domain, self.effects, self._limit)
        with metrics.BATCH_SECONDS.labels(self.service).time():
            done = await apply_batch(decider, Poll(records, starts, attempt.failed))
        note(self.service, done)
        self._fault = ""
        for partition, group in records.items():
            if self._epoch_of(partition) != epochs[partition]:  # revoked meanwhile
                continue
            if partition in done.behind:
                self._seek_to(consumer, partition, done.behind[partition], by_poller=True)
            else:
                self._cursors[partition] = self._cursors[partition].applied(group[-1].offset + 1)
        self._report()

    def _hold(self, consumer: AIOKafkaConsumer, stopped: StoppedPartition) -> None:
        """Stop the partition at its position because a record cannot be handled."""
        cursor, failure = self._cursors.get(stopped.partition), stopped.failure
        if cursor is not None and cursor.next_offset is not None:
            why = PartitionStop(cause_of(failure), cursor.next_offset, None, described(failure))
            self._stop(consumer, stopped.partition, why)

    def _failed(self, error: Exception) -> float:
        """Report that a poll was not applied; returns the seconds to wait."""
        wait = self._backoff.next()
        self._fault = described(error)
        self._report()
        self._failures.failed("batch not applied; trying again", error)
        return wait

    # seeking and stopping

    async def seek(self, consumer: AIOKafkaConsumer, partitions: Iterable[Partition], *, by_poller: bool) -> None:
        """Seek to the database's positions; records of these partitions are accepted only after that.

        Reading of a partition begins only here: one that must not be read is stopped, with the reason. Raises NoIdentity and the
        database's and the broker's errors.
        """
        before = {partition: cursor.epoch for partition in partitions if (cursor := self._cursors.get(partition))}
        if not before:
            return
        if (joins := self._joins) != self._admitted:
            await self.admit()
            self._admitted = joins
        found = await starting_points(self.engine, self.service, consumer, before)
        stops = {partition: one.stop for partition, one in found.items() if one.stop is not None}
        believed = self._guard.believed(before, stops)
        for partition, epoch in before.items():
            if self._epoch_of(partition) != epoch:  # revoked, or sought by the other task meanwhile
                continue
            if why := believed.get(partition):
                self._stop(consumer, partition, why)
            elif partition not in stops:  # otherwise it stays unsought and is checked again
                self._seek_to(consumer, partition, found[partition].position, by_poller=by_poller)

    def _seek_to(self, consumer: AIOKafkaConsumer, partition: Partition, offset: int, *, by_poller: bool) -> None:
        try:
            consumer.seek(TopicPartition(*partition), offset)
            consumer.resume(TopicPartition(*partition))
        except IllegalStateError:  # no longer assigned; the rebalance listener is about to be called
            return
        self._epoch += 1
        self._cursors[partition] = self._cursors[partition].sought(offset, self._epoch, by_poller=by_poller)

    def _stop(self, consumer: AIOKafkaConsumer, partition: Partition, why: PartitionStop) -> None:
        """Accept no records of this partition for a while, longer each time; then it is sought like a new one."""
        cursor = self._cursors.get(partition)
        if cursor is None:
            return
        wait = pause_before(cursor.trouble.stops + 1 if cursor.trouble else 1, 1.0, _LONGEST_STOP_SECONDS)
        self._epoch += 1
        self._cursors[partition] = cursor.stopped(why, time.monotonic() + wait, self._epoch)
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
        self._report()

    def _changed(self, epochs: Mapping[Partition, int]) -> set[Partition]:
        return {partition for partition, epoch in epochs.items() if self._epoch_of(partition) != epoch}

    def _epoch_of(self, partition: Partition) -> int | None:
        cursor = self._cursors.get(partition)
        return cursor.epoch if cursor else None

    # upkeep, once a second

    async def _upkeep(self) -> float:
        """Seek, check the log, measure lag and commit offsets; returns the seconds until the next upkeep."""
        consumer, now = self._consumer, time.monotonic()
        if consumer is None:
            return _UPKEEP_SECONDS
        asleep, self._looked_at = now - self._looked_at, now
        self._epoch += 1
        self._cursors = {partition: cursor.due(now, self._epoch) for partition, cursor in self._cursors.items()}
        try:
            await self._look_at_the_log(consumer)
            self._guard.report(self._cursors)
            await self.seek(consumer, self.unsought(), by_poller=False)
            await self._guard.write_down(self._cursors)
            self.health.report("consuming", not (reason := self._without_partitions(now) or self._guard.doubt), reason)
        except Exception as error:
            self.health.report("consuming", False, described(error))
        self._report()
        positions = {p: cursor.next_offset for p, cursor in self._cursors.items() if cursor.next_offset is not None}
        waiting = {p: cursor.waiting_since for p, cursor in self._cursors.items() if cursor.waiting_since is not None}
        troubled = [partition for partition, cursor in self._cursors.items() if cursor.trouble]
        await self._lag.look(consumer, positions, waiting, troubled)
        if asleep < self._session_seconds / 2:
            await self._commit(consumer)
        return _UPKEEP_SECONDS if self._joined else _JOINING_SECONDS

    async def _look_at_the_log(self, consumer: AIOKafkaConsumer) -> None:
        before = {partition: cursor.epoch for partition, cursor in self._cursors.items()}
        found = await self._guard.look(consumer, self._cursors)
        for partition, why in found.stops.items():
            if self._epoch_of(partition) == before.get(partition):
                self._stop(consumer, partition, why)
        for partition in found.doubted:
            if (cursor := self._cursors.get(partition)) and cursor.epoch == before.get(partition):
                self._epoch += 1
                self._cursors[partition] = cursor.doubted(self._epoch)

    def _without_partitions(self, now: float) -> str:
        """Why this member has no assignment; empty where it has one, or where a rebalance is in progress and not late."""
        if self._joined or (
            self._revoked_at is not None and now - self._revoked_at < self._session_seconds + _REBALANCE_SECONDS
        ):
            return ""
        return "the group has not assigned partitions yet"

    @property
    def _session_seconds(self) -> float:
        return self.settings.session_timeout_ms / 1000

    async def _commit(self, consumer: AIOKafkaConsumer) -> None:
        await self._offsets.commit(
            consumer, {p: cursor.next_offset for p, cursor in self._cursors.items() if cursor.next_offset is not None}
        )

    def _report(self) -> None:
        stopped = [cursor.trouble.why for cursor in self._cursors.values() if cursor.trouble]
        faults = [self._fault] if self._fault else []
        faults += [why.reason for why in stopped if why.cause in ("record", "gap")]
        self.health.report("handling", not faults, "; ".join(faults)[:500])
        metrics.STOPPED.labels(self.service).set(len(stopped))


class _Subscription(Subscribed):
    """Passes the callbacks of one subscription to the consumer, and ignores them once the consumer has a newer subscription.

    Assignment and revocation are passed on at once and without I/O: aiokafka swallows what a listener raises.
    """

    def __init__(self, consumer: Consumer, number: int) -> None:
        self._consumer, self._number = consumer, number

    @property
    def _ours(self) -> bool:
        return self._consumer._subscription == self._number

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        if self._ours:
            self._consumer.revoked()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        if self._ours:
            self._consumer.assigned(tuple(partition) for partition in assigned)

    async def handle(self, records: tuple[Record, ...]) -> None:
        if self._ours:
            await self._consumer.handle(records)

    def lost(self) -> None:
        if self._ours:
            self._consumer.lost()


def _by_partition(records: Iterable[Record]) -> dict[Partition, list[Record]]:
    groups: dict[Partition, list[Record]] = {}
    for record in records:
        groups.setdefault((record.topic, record.partition), []).append(record)
    return groups
