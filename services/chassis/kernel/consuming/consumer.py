"""Consumes with FastStream's batch subscriber and applies each poll in one transaction; no record is lost or applied twice.

The database's positions are the truth: the consumer seeks every assigned partition to its position before it accepts a record
of it, and again after any fault; `cursor` decides which records may be accepted. Between the revocation of partitions and the
next assignment there is no cursor, so that nothing is sought or committed for partitions that another member may own.
`polls` applies what is accepted, and `positioning` seeks and stops partitions. FastStream passes raw records on
(`subscription`); they are decoded inside the transaction's `try`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from faststream.kafka import KafkaBroker
from faststream.kafka.subscriber.usecase import BatchSubscriber
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.topics import Topic
from services.chassis.kafka.reach import start
from services.chassis.kernel.aggregate import Domain
from services.chassis.kernel.consuming.assignment import Assignment
from services.chassis.kernel.consuming.identity.guard import LogGuard
from services.chassis.kernel.consuming.lag import LagWatch
from services.chassis.kernel.consuming.offsets import Offsets
from services.chassis.kernel.consuming.polls import PollHandler
from services.chassis.kernel.consuming.positioning import Positioner
from services.chassis.kernel.consuming.reporting import report_handling
from services.chassis.kernel.consuming.subscription import Subscribed, subscribe
from services.chassis.kernel.deadletters.limit import DeadLetterLimit
from services.chassis.kernel.effects import Effects
from services.chassis.kernel.records import Partition, Record
from services.chassis.kernel.transaction.handover import Handover
from services.chassis.postgres.transactions import Transactional
from services.chassis.process.health import Health
from services.chassis.process.logging import get_logger
from services.chassis.process.transient import Backoff, described, wait_or_stop
from services.chassis.settings import ServiceSettings

_log = get_logger(__name__)
_UPKEEP_SECONDS = 1.0
_JOINING_SECONDS = 0.1
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
    handover: Handover = field(default_factory=Handover)
    """Where the relay of this process takes own events from."""
    assignment: Assignment = field(init=False, default_factory=Assignment)
    positioner: Positioner = field(init=False)
    polls: PollHandler = field(init=False)
    _subscription: int = 0
    """Number of the current subscription; callbacks of an earlier one, which may end late, are ignored."""
    _subscriber: BatchSubscriber | None = None
    _offsets: Offsets = field(default_factory=Offsets)
    _lag: LagWatch = field(init=False)
    _guard: LogGuard = field(init=False)
    _looked_at: float = 0.0

    def __post_init__(self) -> None:
        self._lag = LagWatch(self.service, self.health)
        self._guard = LogGuard(self.service, [topic.name for topic in self.topics], self.engine, self.health)
        limit = DeadLetterLimit(self.settings.dead_letter_run, self.settings.dead_letter_share)
        self.positioner = Positioner(self.service, self.engine, self.health, self.assignment, self._guard, self.admit)
        self.polls = PollHandler(
            self.service, self.domain, self.effects, self.batches, self.health, limit, self.assignment, self.positioner,
            self.handover,
        )  # fmt: skip

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
        self.assignment.revoked_at = None

    # assignment and revocation

    def assigned(self, partitions: Iterable[Partition]) -> None:
        """The group assigned exactly these partitions, possibly none. The next poll or upkeep seeks them, outside aiokafka's
        rebalance; records that arrive before that are not accepted."""
        self._offsets.forget()
        self.assignment.assign(partitions)

    def revoked(self) -> None:
        """This member owns no partition until the next assignment: aiokafka revokes all of them in every rebalance."""
        self.assignment.revoke(time.monotonic())
        self._offsets.forget()

    def lost(self) -> None:
        """The client fetched records and did not return them: every partition is sought again."""
        self.assignment.lose()

    def unsought(self) -> list[Partition]:
        """Assigned partitions that have to be sought."""
        return self.assignment.unsought()

    # polls and positions

    async def handle(self, records: tuple[Record, ...]) -> None:
        """Apply one poll."""
        if self._consumer is not None:
            await self.polls.handle(self._consumer, records)

    async def seek(self, consumer: AIOKafkaConsumer, partitions: Iterable[Partition], *, by_poller: bool) -> None:
        """Seek `partitions` to the database's positions. Raises as `Positioner.seek` does."""
        await self.positioner.seek(consumer, partitions, by_poller=by_poller)

    # upkeep, once a second

    async def _upkeep(self) -> float:
        """Seek, check the log, measure lag and commit offsets; returns the seconds until the next upkeep."""
        consumer, now = self._consumer, time.monotonic()
        if consumer is None:
            return _UPKEEP_SECONDS
        asleep, self._looked_at = now - self._looked_at, now
        self.assignment.end_stops(now)
        try:
            await self._look_at_the_log(consumer)
            self._guard.report(self.assignment.cursors)
            await self.seek(consumer, self.unsought(), by_poller=False)
            await self._guard.write_down(self.assignment.cursors)
            self.health.report("consuming", not (reason := self._without_partitions(now) or self._guard.doubt), reason)
        except Exception as error:
            self.health.report("consuming", False, described(error))
        report_handling(self.service, self.health, self.assignment)
        waiting = {
            p: cursor.waiting_since for p, cursor in self.assignment.cursors.items() if cursor.waiting_since is not None
        }
        troubled = [partition for partition, cursor in self.assignment.cursors.items() if cursor.trouble]
        await self._lag.look(consumer, self.assignment.positions(), waiting, troubled)
        if asleep < self._session_seconds / 2:
            await self._commit(consumer)
        return _UPKEEP_SECONDS if self.assignment.joined else _JOINING_SECONDS

    async def _look_at_the_log(self, consumer: AIOKafkaConsumer) -> None:
        assignment = self.assignment
        before = assignment.epochs(assignment.cursors)
        found = await self._guard.look(consumer, assignment.cursors)
        for partition, why in found.stops.items():
            if assignment.epoch_of(partition) == before.get(partition):
                self.positioner.stop(consumer, partition, why)
        for partition in found.doubted:
            if (cursor := assignment.cursors.get(partition)) and cursor.epoch == before.get(partition):
                assignment.cursors[partition] = cursor.doubted(assignment.next_epoch())

    def _without_partitions(self, now: float) -> str:
        """Why this member has no assignment; empty where it has one, or where a rebalance is in progress and not late."""
        if self.assignment.joined or (
            self.assignment.revoked_at is not None
            and now - self.assignment.revoked_at < self._session_seconds + _REBALANCE_SECONDS
        ):
            return ""
        return "the group has not assigned partitions yet"

    @property
    def _session_seconds(self) -> float:
        return self.settings.session_timeout_ms / 1000

    async def _commit(self, consumer: AIOKafkaConsumer) -> None:
        await self._offsets.commit(consumer, self.assignment.positions())


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
