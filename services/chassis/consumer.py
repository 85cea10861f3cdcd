"""Why: FastStream's batch subscriber feeds the one-transaction batch, and nothing it does can lose or double a record.

The database's positions are the truth: every assigned partition is sought to its position before a record of it is
accepted, and after any fault the consumer is rewound. Kafka's committed offsets are a hint for lag tools. FastStream hands
raw records through (`subscription`); decoding happens inside the transaction's `try`.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError
from faststream.kafka import KafkaBroker
from faststream.kafka.subscriber.usecase import BatchSubscriber
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.topics import Topic
from services.chassis import metrics, store
from services.chassis.aggregate import Domain
from services.chassis.batch import Applied, apply_batch
from services.chassis.deadletters.limit import Limit
from services.chassis.deadletters.rows import Fault
from services.chassis.effects import Effects
from services.chassis.health import Health
from services.chassis.isolation import Groups, Isolation
from services.chassis.lag import LagWatch
from services.chassis.logging import get_logger
from services.chassis.reach import start
from services.chassis.records import Partition, Place, Record
from services.chassis.settings import ServiceSettings
from services.chassis.subscription import subscribe
from services.chassis.surroundings import Backoff, is_surroundings, wait_or_stop

_log = get_logger(__name__)
_UPKEEP_SECONDS = 1.0
_JOINING_SECONDS = 0.1
_LOGGED_DECISIONS = 20
"""So many decisions of one transaction are logged one by one: a backlog would make a line for each of thousands."""


class LogReplaced(Exception):
    """A position lies beyond the end of its partition: this is another log than the one that was applied."""


@dataclass
class _Held:
    """A partition that stopped at a record that may not be set aside; retried with backoff, never skipped."""

    until: float
    backoff: Backoff
    reason: str


@dataclass
class _Stream:
    """What this consumer knows of one assigned partition that it has sought."""

    next_offset: int
    """Read without a gap from the position up to here."""
    exact: bool
    """The polling task itself sought here, so that a jump to a higher offset is the log's own (a transaction's marker).
    After any other seek records of an older poll may still be on their way, and a jump means a gap."""
    waiting_since: float | None = None
    """Time of the oldest record seen and not applied, seconds since 1970."""


@dataclass
class Consumer:
    """One consumer of one service; `run` keeps it consuming until told to stop."""

    settings: ServiceSettings
    service: str
    domain: Domain
    effects: Effects | None
    topics: Sequence[Topic]
    engine: AsyncEngine
    health: Health
    _streams: dict[Partition, _Stream] = field(default_factory=dict)
    _held: dict[Partition, _Held] = field(default_factory=dict)
    _subscriber: BatchSubscriber | None = None
    _lag: LagWatch = field(init=False)
    _limit: Limit = field(init=False)
    _joined: bool = False
    _backoff: Backoff = field(default_factory=Backoff)

    def __post_init__(self) -> None:
        self._lag = LagWatch(self.service, self.health)
        self._limit = Limit(self.settings.dead_letter_run, self.settings.dead_letter_share)

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop`, then finish the batch at hand, commit offsets and leave the group."""
        backoff = Backoff()
        while not stop.is_set():
            broker, self._subscriber = subscribe(self.settings, self.service, self.topics, self.handle, _Assignment(self))
            try:
                await start(broker, self.settings.cluster)
            except (KafkaError, OSError) as error:
                self.health.report("consuming", False, f"broker away: {error}")
                await self._leave(broker)
                await wait_or_stop(stop, backoff.next())
                continue
            try:
                while not await wait_or_stop(stop, _UPKEEP_SECONDS if self._streams else _JOINING_SECONDS):
                    await self._upkeep()
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
            _log.warning("consumer did not leave its group in time", error=str(error))
        self._subscriber, self._joined = None, False
        self.forget(tuple(self._streams))

    async def handle(self, records: tuple[Record, ...]) -> None:
        """Apply one poll. Never raises: whatever happens, the consumer stands where the database says."""
        consumer = self._consumer
        if consumer is None:
            return
        groups = _by_partition(records)
        metrics.CONSUMED.labels(self.service).inc(len(records))
        try:
            await self._apply(consumer, await self._accept(consumer, groups))
        except Exception as error:
            await self._rewind(consumer, groups, error)

    async def _accept(
        self, consumer: AIOKafkaConsumer, groups: dict[Partition, list[Record]]
    ) -> dict[Partition, list[Record]]:
        """The groups that follow without a gap on what was read; the others are refused and their partitions sought."""
        accepted: dict[Partition, list[Record]] = {}
        unsought: list[Partition] = []
        for partition, group in groups.items():
            stream, held = self._streams.get(partition), self._held.get(partition)
            if stream is None:
                unsought.append(partition)
            elif held and time.monotonic() < held.until:
                self._seek_to(consumer, partition, stream.next_offset)
                consumer.pause(TopicPartition(*partition))
            elif group[0].offset > stream.next_offset and not stream.exact:
                self._seek_to(consumer, partition, stream.next_offset)
            else:
                stream.waiting_since = group[0].timestamp / 1000
                accepted[partition] = group
        await self.seek(consumer, unsought, exact=True)
        return accepted

    async def _apply(self, consumer: AIOKafkaConsumer, groups: Groups) -> None:
        read = {partition: self._streams[partition] for partition in groups}

        async def apply(part: Groups, failed: Mapping[Place, Fault]) -> set[Partition]:
            return await self._transaction(consumer, part, failed, read)

        await Isolation(self.engine, self.domain, self._limit, apply, partial(self._hold, consumer)).run(groups)
        self._backoff.reset()

    async def _transaction(
        self, consumer: AIOKafkaConsumer, groups: Groups, failed: Mapping[Place, Fault], read: dict[Partition, _Stream]
    ) -> set[Partition]:
        """Apply records in one transaction; returns the partitions that are to be left alone, as they were sought anew.

        `read` is what was known of each partition when its last records were accepted.
        """
        groups = {p: group for p, group in groups.items() if self._streams.get(p) is read[p]}
        starts = {partition: read[partition].next_offset for partition in groups}
        with metrics.BATCH_SECONDS.labels(self.service).time():
            done = await apply_batch(
                self.engine, self.domain, self.effects, groups, starts, failed=failed, limit=self._limit
            )
        self._note(done)
        for partition, group in groups.items():
            if self._streams.get(partition) is not read[partition]:  # revoked meanwhile
                continue
            if partition in done.behind:
                self._seek_to(consumer, partition, done.behind[partition])
            else:
                self._streams[partition] = read[partition] = _Stream(group[-1].offset + 1, exact=False)
                self._held.pop(partition, None)
        self.health.report("handling", not self._held, "; ".join(held.reason for held in self._held.values()))
        return {partition for partition in read if self._streams.get(partition) is not read[partition]}

    def _hold(self, consumer: AIOKafkaConsumer, partition: Partition, error: Exception) -> None:
        held = self._held.setdefault(partition, _Held(0.0, Backoff(1.0, 60.0), ""))
        wait = held.backoff.next()
        held.until, held.reason = time.monotonic() + wait, str(error).splitlines()[0][:500]
        metrics.FAILURES.labels(self.service, partition[0]).inc()
        _log.error(
            "handling failed; the partition waits", partition=partition, retry_seconds=round(wait, 1), error=held.reason
        )
        self.health.report("handling", False, held.reason)
        if partition in self._streams:
            self._seek_to(consumer, partition, self._streams[partition].next_offset)
            consumer.pause(TopicPartition(*partition))

    async def _rewind(self, consumer: AIOKafkaConsumer, partitions: Iterable[Partition], error: Exception) -> None:
        wait = self._backoff.next()
        known = is_surroundings(error) or isinstance(error, LogReplaced)
        self.health.report("handling", False, f"{type(error).__name__}: {str(error).splitlines()[0]}"[:500])
        log = _log.warning if known else _log.exception
        log("batch not applied; trying again", retry_seconds=round(wait, 1), error=str(error)[:500])
        for partition in partitions:
            stream = self._streams.get(partition)
            if stream is not None:
                self._seek_to(consumer, partition, stream.next_offset)
        await asyncio.sleep(wait)

    async def seek(self, consumer: AIOKafkaConsumer, partitions: Iterable[Partition], *, exact: bool) -> None:
        """Seek to the database's positions; only then are records of these partitions accepted.

        Raises the database's and the broker's errors, and LogReplaced.
        """
        wanted = [TopicPartition(*partition) for partition in partitions]
        if not wanted:
            return
        known = await self._positions(wanted)
        ends = await consumer.end_offsets(wanted)
        for partition in wanted:
            if known[tuple(partition)] > ends[partition]:
                raise LogReplaced(
                    f"{partition.topic}:{partition.partition} is applied up to offset {known[tuple(partition)]} but ends at "
                    f"{ends[partition]}: this is another log; restore it, or give this service a new database"
                )
        assigned = consumer.assignment()
        for partition in wanted:
            if partition in assigned:
                self._seek_to(consumer, tuple(partition), known[tuple(partition)], exact=exact)

    async def _positions(self, wanted: Sequence[TopicPartition]) -> dict[Partition, int]:
        async with self.engine.begin() as connection:
            await connection.execute(
                store.INSERT_POSITION, [{"topic": topic, "partition": partition} for topic, partition in sorted(wanted)]
            )
            return await store.positions(connection)

    def _seek_to(self, consumer: AIOKafkaConsumer, partition: Partition, offset: int, *, exact: bool = True) -> None:
        try:
            consumer.seek(TopicPartition(*partition), offset)
        except IllegalStateError:  # revoked meanwhile
            self.forget([partition])
        else:
            known = self._streams.get(partition)
            self._streams[partition] = _Stream(offset, exact, known.waiting_since if known else None)

    def joined(self) -> None:
        """The group has given this member its partitions, possibly none."""
        self._joined = True

    def forget(self, partitions: Iterable[Partition]) -> None:
        """These partitions are no longer ours, or no longer sought."""
        for partition in partitions:
            self._streams.pop(partition, None)
            self._held.pop(partition, None)

    async def _upkeep(self) -> None:
        consumer = self._consumer
        if consumer is None:
            return
        unsought = {tuple(partition) for partition in consumer.assignment()} - self._streams.keys()
        try:
            await self.seek(consumer, unsought, exact=False)
            self.health.report("consuming", self._joined, "" if self._joined else "the group has not given partitions yet")
        except Exception as error:
            self.health.report("consuming", False, f"{type(error).__name__}: {error}"[:500])
        metrics.STOPPED.labels(self.service).set(len(self._held))
        for partition, held in self._held.items():
            if time.monotonic() >= held.until and TopicPartition(*partition) in consumer.paused():
                consumer.resume(TopicPartition(*partition))
        positions = {partition: stream.next_offset for partition, stream in self._streams.items()}
        waiting = {p: stream.waiting_since for p, stream in self._streams.items() if stream.waiting_since is not None}
        await self._lag.look(consumer, positions, waiting, self._held)
        await self._commit(consumer)

    async def _commit(self, consumer: AIOKafkaConsumer) -> None:
        offsets = {TopicPartition(*partition): stream.next_offset for partition, stream in self._streams.items()}
        offsets = {partition: offset for partition, offset in offsets.items() if partition in consumer.assignment()}
        if not offsets:
            return
        try:
            async with asyncio.timeout(5):
                await consumer.commit(offsets)
        except (TimeoutError, KafkaError, OSError) as error:  # a hint only: the position is in the database
            _log.debug("offsets not committed", error=str(error))

    def _note(self, done: Applied) -> None:
        metrics.APPLIED.labels(self.service).inc(done.applied)
        metrics.SKIPPED.labels(self.service, "known").inc(done.skipped)
        metrics.SKIPPED.labels(self.service, "unhandled").inc(done.unhandled)
        metrics.DEAD_LETTERED.labels(self.service).inc(done.dead)
        metrics.PARKED.labels(self.service).inc(done.parked)
        if done.dead or done.parked:
            _log.warning("records became dead letters", count=done.dead, parked=done.parked)
        if len(done.emitted) > _LOGGED_DECISIONS:
            kinds = Counter(event.type for event in done.emitted)
            _log.info("decided much", decisions=len(done.emitted), types=dict(kinds))
            return
        for event in done.emitted:
            _log.info(
                "decided", type=event.type, event_id=event.id, job_id=event.correlation_id, subject=event.subject,
                sequence=event.sequence, causation_id=event.causation_id, trace_id=event.traceparent.split("-")[1],
            )  # fmt: skip


class _Assignment(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka swallows what a listener raises: a failed seek leaves its partitions unsought, and `handle` refuses them."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._consumer.forget(tuple(partition) for partition in revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Left to the next poll or upkeep, outside aiokafka's rebalance: whatever comes before the seek is refused."""
        self._consumer.forget(tuple(partition) for partition in assigned)
        self._consumer.joined()


def _by_partition(records: Iterable[Record]) -> dict[Partition, list[Record]]:
    groups: dict[Partition, list[Record]] = {}
    for record in records:
        groups.setdefault((record.topic, record.partition), []).append(record)
    return groups
