"""Wires the parts of a running service in one place; it is built without I/O, and `run` starts and drains it."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from schemas.topics import PROGRESS, Topic
from services.chassis.kafka.catalogue_watch import CatalogueWatch
from services.chassis.kafka.group import GroupWatch
from services.chassis.kafka.publisher import Publisher
from services.chassis.kernel import metrics, store
from services.chassis.kernel.aggregate import Domain, Ref
from services.chassis.kernel.consuming.consumer import Consumer
from services.chassis.kernel.deadletters import repository
from services.chassis.kernel.effects import Effects
from services.chassis.kernel.operations.discards import learn_discards
from services.chassis.kernel.operations.handling import DeadLetterContext, drain_free
from services.chassis.kernel.operations.partitions.reading import ConsumedTopics
from services.chassis.kernel.relay.relay import Relay
from services.chassis.kernel.ticker import Ticker
from services.chassis.kernel.transaction.commands import Command, transact
from services.chassis.kernel.transaction.handover import Handover
from services.chassis.migrations.migrate import ensure_migrated
from services.chassis.postgres.notifications import Notifications
from services.chassis.postgres.requirements import DatabaseRefused
from services.chassis.postgres.statements import READS_ONLY
from services.chassis.process.health import Health
from services.chassis.process.logging import get_logger
from services.chassis.process.repeated_failures import FailureLog
from services.chassis.process.transient import (
    Backoff,
    Loop,
    ReadsOnly,
    described,
    is_transient,
    until_stopped,
    wait_or_stop,
)
from services.chassis.replay.checks import ReplayRefused
from services.chassis.replay.projection import Projection
from services.chassis.replay.rebuild import engine_of
from services.chassis.replay.referenced import ReferencedArtifacts, ReferencedBy
from services.chassis.replay.restore import NotRestored, restore, until_restored
from services.chassis.replay.retention import chassis_removers
from services.chassis.replay.runs import Busy
from services.chassis.serving.reads import Reads
from services.chassis.settings import ServiceSettings
from services.chassis.storage.retention.run import Remover, Retention

_log = get_logger(__name__)
_PROBE_SECONDS = 2.0
_BROKER_SILENT_SECONDS = 15.0
_LETTERS_SECONDS = 10.0
_RECOVERY_SECONDS = 60.0
"""A restarted loop counts as healthy after this time, which exceeds the longest wait before a restart."""


class Runtime:
    """One service in one process."""

    def __init__(
        self,
        settings: ServiceSettings,
        service: str,
        domain: Domain,
        *,
        topics: Sequence[Topic],
        effects: Effects | None = None,
    ) -> None:
        self.settings, self.service, self.domain, self.effects = settings, service, domain, effects
        self.topics = tuple(topics)
        self._removers: tuple[Remover, ...] = ()
        self._referenced_by: ReferencedBy = {}
        url = settings.database_url_for(service)
        patience = settings.session_timeout_ms / 1000
        seconds = settings.database_seconds
        connect = partial(store.connect, url, idle_in_transaction_seconds=patience, statement_seconds=seconds)
        self.engine = connect()
        self._positions = connect(pool_size=1, probe=False)
        """Where the consumer looks up positions; it retries after any error."""
        self._batches = store.transactions(url, idle_in_transaction_seconds=patience, statement_seconds=seconds)
        self._handover = Handover()
        self.reads = Reads(url, statement_seconds=seconds)
        """For reads by HTTP routes."""
        self.publisher = Publisher(settings.cluster, f"neuroweaver-{service}")
        self.notifications = Notifications(url)
        required = (
            "migrated", "restored", "database", "broker", "topics", "log", "unread", "consuming", "handling", "moving", "deciding",
            "relaying", "copying", "alone", "running",
        )  # fmt: skip
        self.health = Health(service, required)
        self.group = GroupWatch(settings.cluster, service, self.engine, self.health)
        self._catalogue = CatalogueWatch(settings.cluster, self.health)
        self.health.report("handling", True)
        self.health.report("moving", True)
        self.health.report("running", True)
        self._recovery: asyncio.TimerHandle | None = None

    @property
    def projection(self) -> Projection:
        """Return the projection of this service, for replays."""
        kept = tuple(topic.name for topic in self.topics if topic is not PROGRESS)
        url = self.settings.database_url_for(self.service)
        return Projection(self.service, self.domain, kept, self.settings.cluster, url)

    @property
    def handling(self) -> DeadLetterContext:
        """Return the context for handling this service's dead letters."""
        return DeadLetterContext(self.service, self.domain, self.effects, self.settings.database_url_for(self.service))

    @property
    def reading(self) -> ConsumedTopics:
        """Return what this service reads, and where it stores its positions."""
        topics = tuple(topic.name for topic in self.topics)
        url = self.settings.database_url_for(self.service)
        return ConsumedTopics(self.service, self.domain.source, topics, self.settings.cluster, url)

    @property
    def retention(self) -> Retention:
        """Run the retention loop of this service."""
        policy = self.settings.retention
        removers = (*chassis_removers(self.engine, policy), *self._removers)
        return Retention(self.service, removers, policy.every_seconds, self.engine)

    def keep(self, removers: Sequence[Remover]) -> None:
        """Apply the retention policy also to these, in addition to those of every service."""
        self._removers = (*self._removers, *removers)

    @property
    def referenced(self) -> ReferencedArtifacts:
        """Say which artifacts the rows of this service reference."""
        return ReferencedArtifacts(self.service, self.reading, self._referenced_by)

    def reference(self, referenced_by: ReferencedBy) -> None:
        """Name tables of which not every row references the artifacts that it names."""
        self._referenced_by = {**self._referenced_by, **referenced_by}

    def transact(self, refs: Iterable[Ref]) -> AbstractAsyncContextManager[Command]:
        """Open one transaction that locks `refs`, for a timer, worker or HTTP command. Raises OtherDeployment."""
        self.group.check()
        return transact(self.engine, self.domain, self.effects, refs)

    @asynccontextmanager
    async def run(self, tasks: Sequence[Loop]) -> AsyncIterator[None]:
        """Start everything and serve until the block ends, then drain: tasks first, the relay last."""
        stop, relay_stop = asyncio.Event(), asyncio.Event()
        support = [self._spawn(name, loop, relay_stop) for name, loop in self._support()]
        boot = asyncio.create_task(self._boot(stop, tasks), name=f"{self.service}-boot")
        try:
            yield
        finally:
            _log.info("draining", service=self.service)
            stop.set()
            await boot
            relay_stop.set()
            await asyncio.gather(*support)
            self.reads.close()
            await self.engine.dispose()
            await self._positions.dispose()
            await self._batches.close()
            _log.info("stopped", service=self.service)

    def _support(self) -> list[tuple[str, Loop]]:
        relay = Relay(self.settings.cluster, self.service, self.engine, self.notifications, self.health, self._handover)
        return [
            ("tick", self._tick),
            ("probe", self._probe),
            ("notifications", self._after_migration(self.notifications.run)),
            ("publisher", self.publisher.run),
            ("group", self._after_migration(self.group.run)),
            ("relay", self._after_migration(self._alone(relay.run))),
        ]

    async def _boot(self, stop: asyncio.Event, tasks: Sequence[Loop]) -> None:
        """Migrate and find the topics, retrying while database or broker are unreachable, then run the loops that need
        both."""
        await until_stopped(self._prepared(), stop)
        if stop.is_set():
            return
        consumer = Consumer(
            self.settings, self.service, self.domain, self.effects, self.topics, self._positions, self._batches, self.health,
            self.group.admit, self._handover,
        )  # fmt: skip
        ticker = Ticker(self.engine, self.domain, self.effects, self.health)
        loops: list[tuple[str, Loop]] = [
            ("consumer", partial(self.group.while_free, loop=consumer.run, alone=False)),
            ("ticker", self._alone(ticker.run)),
            ("retention", self._alone(self.retention.run)),
            ("dead-letters", self._alone(self._look_at_dead_letters)),
            ("catalogue", self._catalogue.run),
        ]
        loops += [(f"task-{number}", self._alone(task)) for number, task in enumerate(tasks)]
        await asyncio.gather(*(self._spawn(name, loop, stop) for name, loop in loops))

    async def _prepared(self) -> None:
        """Prepare and retry until it succeeds, also if an operator must act first."""
        backoff, failures = Backoff(), FailureLog(_log)
        while True:
            try:
                await self._prepare()
                return
            except NotRestored as error:
                _log.error(
                    "the database is not restored from the log; the service consumes and decides nothing",
                    service=self.service,
                    error=described(error),
                )
                self.health.report("restored", False, described(error))
                await until_restored(self.engine)
            except Exception as error:
                known = isinstance(error, (Busy, ReplayRefused, DatabaseRefused))
                failures.failed("cannot start yet", error, known=known, service=self.service)
                if isinstance(error, (Busy, ReplayRefused)):
                    self.health.report("restored", False, described(error))
                await asyncio.sleep(backoff.next())

    async def _prepare(self) -> None:
        if "migrated" not in self.health.conditions or not self.health.conditions["migrated"].holds:
            try:
                revisions = await ensure_migrated(self.settings, self.service)
            except Exception as error:
                self.health.report("migrated", False, described(error, 1000))
                raise
            self.health.report("migrated", True, ", ".join(revisions))
        missing = [change.topic for change in await self._catalogue.look() if change.action == "create"]
        if missing:
            raise TimeoutError(f"topics missing: {', '.join(missing)}; run `neuroweaver topics apply`")
        await self.group.admit()
        await learn_discards(self.engine, self.settings.cluster, self.domain.source)
        async with engine_of(self.projection) as engine:
            await restore(self.projection, engine)
        self.health.report("restored", True)

    def _alone(self, loop: Loop) -> Loop:
        """Run the loop only while no other deployment works on the same log and this one is in the group."""
        return partial(self.group.while_free, loop=loop)

    def _after_migration(self, loop: Loop) -> Loop:
        async def run(stop: asyncio.Event) -> None:
            while not (known := self.health.conditions.get("migrated")) or not known.holds:
                if await wait_or_stop(stop, 0.1):
                    return
            await loop(stop)

        return run

    def _spawn(self, name: str, loop: Loop, stop: asyncio.Event) -> "asyncio.Task[None]":
        return asyncio.create_task(self._guard(name, loop, stop), name=f"{self.service}-{name}")

    async def _guard(self, name: str, loop: Loop, stop: asyncio.Event) -> None:
        """Run a loop; an error that it raises is a bug, so it is logged and the loop is restarted with backoff."""
        backoff = Backoff(1.0, 30.0)
        while not stop.is_set():
            try:
                await loop(stop)
                return
            except Exception as error:
                _log.exception("a loop failed; starting it again", service=self.service, loop=name)
                self._failed(name, error)
                await wait_or_stop(stop, backoff.next())

    def _failed(self, name: str, error: Exception) -> None:
        """Report the service as not ready while a loop keeps failing; after it has run for a while it is ready again."""
        self.health.report("running", False, f"{name}: {described(error)}")
        if self._recovery is not None:
            self._recovery.cancel()
        self._recovery = asyncio.get_running_loop().call_later(_RECOVERY_SECONDS, self.health.report, "running", True)

    async def _tick(self, stop: asyncio.Event) -> None:
        while not await wait_or_stop(stop, 1.0):
            self.health.tick()

    async def _probe(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                async with asyncio.timeout(5), self.engine.connect() as connection:
                    if await connection.scalar(READS_ONLY):
                        raise ReadsOnly
                self.health.report("database", True)
            except Exception as error:
                self.health.report("database", False, described(error))
                if isinstance(error, ReadsOnly):  # a session stays read-only: the next probe takes a new one
                    await self.engine.dispose()
                    self.reads.close()
            contact = self.publisher.last_contact
            silent = None if contact is None else time.monotonic() - contact
            reason = "not reached yet" if silent is None else f"silent for {silent:.0f} s"
            if trouble := self.publisher.trouble:
                reason += f": {trouble}"
            self.health.report("broker", silent is not None and silent < _BROKER_SILENT_SECONDS, reason)
            await wait_or_stop(stop, _PROBE_SECONDS)

    async def _look_at_dead_letters(self, stop: asyncio.Event) -> None:
        """Count dead letters, and apply parked records that are no longer blocked."""
        failures = FailureLog(_log)
        while not stop.is_set():
            try:
                await drain_free(self.engine, self.handling)
                async with self.engine.connect() as connection:
                    for state, number in (await repository.count(connection)).items():
                        metrics.DEAD_LETTERS.labels(self.service, state).set(number)
                failures.recovered()
            except Exception as error:
                if not is_transient(error):
                    raise
                failures.failed("dead letters could not be checked", error, service=self.service)
            await wait_or_stop(stop, _LETTERS_SECONDS)
