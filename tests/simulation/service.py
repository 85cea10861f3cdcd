"""One service in the simulation: its domain and database, and processes made of the chassis' own consumer, relay, ticker and worker."""

import hashlib
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from aiokafka import TopicPartition
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.artifacts import ArtifactRef
from schemas.envelope import Event
from schemas.jobs import FeedbackRecorded, StepFault, StepRequested, StepResult
from schemas.steps import OUTPUTS_OF, RegisterSettings
from services.chassis.executor.attempts import decision
from services.chassis.executor.host import Host
from services.chassis.executor.runner import Completed, Failed, Outcome, UnderLocks
from services.chassis.executor.transactions import Held, begin, finish
from services.chassis.executor.work import Lease, claim, release, renew, requeue_open
from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel.aggregate import Domain, Ref, States
from services.chassis.kernel.consuming.consumer import Consumer
from services.chassis.kernel.effects import Effects, Notification
from services.chassis.kernel.records import Partition, RecordId, named
from services.chassis.kernel.relay.outbox import OutboxCursor
from services.chassis.kernel.relay.relay import Relay
from services.chassis.kernel.ticker import Ticker, Undecided
from services.chassis.kernel.transaction.commands import Command, transact
from services.chassis.kernel.transaction.handover import Handover
from services.chassis.postgres.transactions import Session
from services.chassis.prices import PriceSettings
from services.chassis.process.health import Health
from services.registry.domain.registering import further_rows, register, rows_of
from services.registry.register import _wanted
from tests.log import HeldRecord
from tests.simulation.database import Connection, ConnectionLost, Database, claimable
from tests.simulation.log import LOGGED, MemoryLog, partition_of
from tests.simulation.promises import Broken
from tests.simulation.turns import Task, turn
from tests.simulation.weather import Weather

LEASE_SECONDS = 12.0
_TOLD = 0.3
"""How often the relay reads the outbox although it need not; else it sends what was handed over, if that follows."""
_WHOLE_SECONDS = 30.0
"""Time between two reads of the whole outbox; much happens in it."""


class Ledger:
    """The service's effects, with an additional line for each applied event of others, which is rolled back with the
    transaction."""

    def __init__(self, domain: Domain, effects: Effects | None, lying: Mapping[int, RecordId]) -> None:
        self._domain, self._effects, self._lying = domain, effects, lying

    async def __call__(self, connection: Session, events: Sequence[Event], states: States) -> Sequence[Notification]:
        cast(Connection, connection).note(
            named(self._lying[id(event)])
            for event in events
            if event.source != self._domain.source and self._domain.touches(event)
        )
        return () if self._effects is None else await self._effects(connection, events, states)


@dataclass
class Service:
    """One of the four services, with everything that outlives its processes."""

    name: str
    domain: Domain
    effects: Effects | None
    topics: tuple[str, ...]
    database: Database
    log: MemoryLog
    weather: Weather
    executes: bool = False
    committed: dict[Partition, int] = field(default_factory=dict)
    """The offsets committed to Kafka, which are only a hint."""
    relaying: "Process | None" = None
    """The process whose session holds the relay's lock."""
    away: bool = False
    """Whether it waits for its database to be restored."""
    started: int = 0
    """Number of its processes that died and were replaced."""
    _serial: int = 0

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.domain, self.effects, self.log.lying)
        self.processes = [Process(self, number) for number in range(2)]
        self.counts = {topic.name: self.log.count(topic.name) for topic in LOGGED}
        for partition in self.log.ends(self.topics):
            self.processes[0].member.assign(partition, 0)

    def notice_partitions(self) -> None:
        """Refresh its clients' metadata, so that they read from and write to new partitions."""
        self.counts = {topic: self.log.count(topic) for topic in self.counts}
        for partition in sorted(self.log.ends(self.topics)):
            if not any(process.member.has(partition) for process in self.processes):
                self.rebalance(partition, self.weather.chance.choice(self.processes))

    @property
    def engine(self) -> AsyncEngine:
        """Return the database in the form that the chassis needs."""
        return cast(AsyncEngine, self.database)

    def transact(self, refs: Iterable[Ref]) -> AbstractAsyncContextManager[Command]:
        """Open a transaction, like the runtime's."""
        return transact(self.engine, self.domain, self.ledger, refs)

    def token(self) -> str:
        """Return a new lease token."""
        self._serial += 1
        return f"{self.name}-{self._serial}"

    def rebalance(self, partition: Partition, to: "Process") -> None:
        """Assign a partition to another member; its former owner does not know yet."""
        to.member.assign(partition, self.weather.chance.randint(0, self.committed.get(partition, 0)))

    def kill(self, process: "Process") -> None:
        """Kill a process at its present step; another one replaces it and takes its partitions, at once or later."""
        process.kill()
        self.started += 1
        new = Process(self, process.number)
        self.processes[self.processes.index(process)] = new
        for partition in sorted(process.member.assigned):
            if not any(other.member.has(partition) for other in self.processes):
                self.rebalance(partition, self.weather.chance.choice(self.processes))

    def lose_database(self) -> None:
        """Empty the database and kill its processes."""
        for process in list(self.processes):
            self.kill(process)
        self.database = Database(self.database.clock, self.database.rules)
        self.relaying, self.away = None, True
        for process in self.processes:
            process.restart()


class Member:
    """Replaces aiokafka's consumer: the assigned partitions, and the offsets of the next fetch."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.assigned: dict[Partition, int] = {}
        self.paused: set[Partition] = set()
        self.consumer: Consumer | None = None

    def assign(self, partition: Partition, offset: int) -> None:
        """Rebalance: revoke all partitions and assign them again, with this one."""
        self.assigned[partition] = offset
        self._say()

    def revoke(self, partition: Partition) -> None:
        self.assigned.pop(partition, None)
        self._say()

    def _say(self) -> None:
        self.paused = set()
        if self.consumer is not None:
            self.consumer.revoked()
            self.consumer.assigned(self.assigned)

    def has(self, partition: Partition) -> bool:
        return partition in self.assigned

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(TopicPartition(*partition) for partition in self.assigned)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition in self.assigned:
            self.assigned[tuple(partition)] = offset

    def pause(self, partition: TopicPartition) -> None:
        """Fetch nothing of the partition for a while."""
        self.paused.add(tuple(partition))

    def resume(self, partition: TopicPartition) -> None:
        self.paused.discard(tuple(partition))

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {partition: len(self._service.log.partitions[tuple(partition)]) for partition in partitions}

    def behind(self) -> bool:
        """Return whether a fetch would find records."""
        partitions = self._service.log.partitions
        for partition, offset in self.assigned.items():
            if offset < len(partitions[partition]) and partition not in self.paused:
                return True
        return False

    def fetch(self, weather: Weather) -> tuple[HeldRecord, ...]:
        """Return some records after the positions, in any mixture of partitions."""
        found: list[HeldRecord] = []
        for partition in weather.shuffled(self.assigned):
            records = self._service.log.partitions[partition]
            offset = self.assigned[partition]
            if offset < len(records) and partition not in self.paused:
                end = min(len(records), offset + weather.chance.randint(1, 6))
                found += records[offset:end]
                self.assigned[partition] = end
                if weather.chance.random() < 0.3:
                    break
        return tuple(found)


class Sending(Relay):
    """The chassis' relay; records are acknowledged when they are sent, since the log in memory is never absent."""

    weather: Weather

    def _now(self) -> float:
        return self.weather.clock.seconds

    async def _acknowledged(self, futures: Sequence[Any], stop: Any) -> list[object]:
        return [None for _ in futures]


class Batch:
    """Replaces aiokafka's batch for the relay."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes, Sequence[tuple[str, bytes]]]] = []

    def append(self, *, timestamp: None, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> int:
        self.records.append((key, value, headers))
        return len(self.records)

    def close(self) -> None:
        """Accept no more records."""


class Producer:
    """Replaces aiokafka's producer for the relay."""

    def __init__(self, log: MemoryLog, counts: Mapping[str, int]) -> None:
        self._log, self._counts = log, counts

    async def partitions_for(self, topic: str) -> set[int]:
        return set(range(self._counts[topic]))

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> None:
        await turn()
        for key, value, headers in batch.records:
            if partition_of(key, self._counts[topic]) != partition:
                raise Broken(f"{key!r} was sent to partition {partition} of {topic}, where it does not belong")
            self._log.append((topic, partition), key, value, headers)


async def _admitted() -> str:
    """Admit every process, because the simulation has one deployment."""
    return ""


class Process:
    """One process: a member of the group, a relay that may hold the lock, a ticker and a worker.

    Each does one thing at a time.
    """

    def __init__(self, service: Service, number: int) -> None:
        self.service, self.number = service, number
        self.member = Member(service)
        self.tasks: dict[str, Task | None] = {}
        self.frozen_until = 0.0
        self._idle: dict[str, float] = {}
        self.restart()

    def restart(self) -> None:
        """Set the state to that of a new process."""
        service = self.service
        self.handover = Handover()
        settings = cast(Any, SimpleNamespace(dead_letter_run=4, dead_letter_share=0.2, lease_seconds=LEASE_SECONDS))
        self.consumer = Consumer(
            settings,
            service.name,
            service.domain,
            service.ledger,
            (),
            service.engine,
            service.engine,
            Health(service.name, ()),
            _admitted,
            self.handover,
        )
        self.consumer._subscriber = cast(Any, SimpleNamespace(consumer=self.member))
        self.member.consumer = self.consumer
        self.consumer.assigned(self.member.assigned)
        self._doing: dict[str, tuple[Callable[[], bool], Callable[[], Coroutine[Any, Any, None]]]] = {
            "consume": (self._consume_wanted, self._consume),
            "upkeep": (self._upkeep_wanted, self._upkeep),
            "relay": (self._relay_wanted, self._relay),
            "tick": (self._tick_wanted, self._tick),
        }
        if service.executes:
            self._doing["work"] = (self._work_wanted, self._work)
        self.tasks = dict.fromkeys(self._doing)
        self._taken_up = not service.executes
        self._session: Connection | None = None
        self._active = ExitStack()
        free = SimpleNamespace(price=PriceSettings())
        self._host = cast(Host, SimpleNamespace(service=service.name, transact=service.transact, settings=free))
        self._name = f"{service.name}:{self.number}"

    def kill(self) -> None:
        """End all of its tasks."""
        for task in self.tasks.values():
            if task is not None:
                task.kill()
        self.tasks = {}
        if self.service.relaying is self:
            self.service.relaying = None

    def lose_session(self) -> None:
        """End the session that holds the relay's lock; the relay continues until it notices."""
        if self._session is not None:
            self._session.lost = True
        if self.service.relaying is self:
            self.service.relaying = None

    def freeze(self, seconds: float) -> None:
        """Freeze the process for a while with all that it holds; meanwhile the server ends its relay's session, and the
        group may assign its partitions to another member without its knowledge."""
        self.frozen_until = self.service.weather.alarm(seconds)
        self.lose_session()
        others = [process for process in self.service.processes if process is not self]
        if self.service.weather.chance.random() < 0.6:
            for partition in sorted(self.member.assigned):
                if not any(other.member.has(partition) for other in others):
                    self.service.rebalance(partition, self.service.weather.chance.choice(others))

    def go_on(self, role: str) -> bool:
        """Run one step of `role`; False if there is nothing to do now."""
        if self.service.away or self.frozen_until > self.service.weather.clock.seconds:
            return False
        task = self.tasks.get(role)
        if task is None or task.done:
            wanted, begin = self._doing[role]
            if not wanted():
                return False
            task = self.tasks[role] = Task(f"{self.service.name}-{self.number} {role}", begin())
        if not task.ready():
            return False
        with suppress(ConnectionLost, TimeoutError):  # a transient error is retried, as in the loops of the chassis
            task.go_on()
        return True

    @property
    def busy(self) -> bool:
        """Return whether any task is running."""
        return any(task is not None and not task.done for task in self.tasks.values())

    # -- consuming --------------------------------------------------------------------------------------------------------
    def _consume_wanted(self) -> bool:
        return self.member.behind()

    async def _consume(self) -> None:
        weather = self.service.weather
        records = self.member.fetch(weather)
        await turn()
        if not records:
            return
        if weather.faulty and weather.chance.random() < 0.3:  # fetched records stay in the client while other tasks seek
            await weather.wait(weather.chance.uniform(0, 2))
        await self.consumer.handle(cast(Any, records))
        for partition, cursor in self.consumer.assignment.cursors.items():
            if cursor.next_offset is not None:
                self.service.committed[partition] = cursor.next_offset

    def stops(self) -> list[float]:
        """Return when stopped partitions are tried again, in seconds of the clock."""
        cursors = self.consumer.assignment.cursors.values()
        return [cursor.trouble.until for cursor in cursors if cursor.state == "stopped" and cursor.trouble]

    def _upkeep_wanted(self) -> bool:
        for cursor in self.consumer.assignment.cursors.values():
            if cursor.state == "unsought":
                return True
            if cursor.state == "stopped" and cursor.trouble and cursor.trouble.until <= self.service.weather.clock.seconds:
                return True
        return False

    async def _upkeep(self) -> None:
        """Do what `Consumer._upkeep` does for partitions that were not sought or whose stop is over, concurrently with a
        poll."""
        self.consumer.assignment.end_stops(self.service.weather.clock.seconds)
        await self.consumer.seek(cast(Any, self.member), self.consumer.unsought(), by_poller=False)

    # -- relaying ---------------------------------------------------------------------------------------------------------
    def _relay_wanted(self) -> bool:
        mine = self.service.relaying in (None, self)
        return mine and bool(self.service.database.rows("outbox"))

    async def _relay(self) -> None:
        service = self.service
        if service.relaying is not self:
            if service.relaying is not None:
                return
            service.relaying, self._session = self, service.database.connection()
            self._begin_to_relay()
        session = self._session
        assert session is not None
        self._sending._told = service.weather.chance.random() < _TOLD
        try:
            producer = Producer(service.log, dict(service.counts))
            await self._sending._drain(cast(Any, session), cast(Any, producer), cast(Any, None))
        except ConnectionLost:
            self._session = None
            self._active.close()

    def _begin_to_relay(self) -> None:
        """Do what `Relay.run` does with a new session."""
        name = self.service.name
        self._active.close()
        self._sending = Sending(
            Cluster("memory"), name, self.service.engine, cast(Any, None), Health(name, ()), self.handover
        )
        self._sending.weather = self.service.weather
        self._sending._cursor = OutboxCursor(_WHOLE_SECONDS)
        self._active.enter_context(self.handover.taken_by(lambda: None))

    # -- timers -----------------------------------------------------------------------------------------------------------
    def _tick_wanted(self) -> bool:
        database = self.service.database
        if database.rows("sweep"):
            return True
        now = database.clock.now
        for name in self.service.domain.aggregates:
            for row in database.rows(name).values():
                if row["due_at"] is not None and row["due_at"] <= now:
                    return True
        return False

    async def _tick(self) -> None:
        faulty: dict[Ref, Undecided] = {}
        health = Health(self.service.name, ())
        await Ticker(self.service.engine, self.service.domain, self.service.ledger, health)._look(faulty)
        if faulty:
            raise Broken(f"{self.service.name}: a due decision failed for {sorted(faulty)}")

    # -- work -------------------------------------------------------------------------------------------------------------
    def _work_wanted(self) -> bool:
        if not self._taken_up:
            return True
        now = self.service.database.clock.now
        return any(claimable(row, now) for row in self.service.database.rows("work").values())

    async def _work(self) -> None:
        service, weather = self.service, self.service.weather
        if not self._taken_up:
            await requeue_open(service.engine)
            self._taken_up = True
            return
        lease = await claim(service.engine, service.token(), LEASE_SECONDS)
        if lease is None:
            return
        held = await begin(self._host, self._name, lease, 0.0)
        if held is None:
            return
        outcome = await self._run(held, lease)
        if outcome == "lost":
            return
        if outcome == "stopped":
            await release(service.engine, lease)
            return
        assert not isinstance(outcome, str)
        if weather.faulty and weather.chance.random() < 0.1:  # it is frozen, and does not know that its lease has expired
            await weather.wait(weather.chance.uniform(0, 3 * LEASE_SECONDS))
        await finish(self._host, held, outcome)

    async def _run(self, held: Held, lease: Lease) -> Outcome | str:
        """Work like `Worker._do`: renew during the work, and stop on request or when the lease is lost."""
        weather = self.service.weather
        left = weather.chance.uniform(0.5, 20.0)
        while left > 0:
            wait = min(left, LEASE_SECONDS / 3)
            await weather.wait(wait)
            left -= wait
            cancel = await renew(self.service.engine, lease, LEASE_SECONDS)
            if cancel is None:
                return "lost"
            if cancel:
                return Failed(StepFault(cause="infrastructure", message="cancelled"))
        return self._outcome(held.work.request)

    def _outcome(self, request: StepRequested) -> Outcome | str:
        weather = self.service.weather
        if weather.faulty:
            drawn = weather.chance.random()
            if drawn < 0.06:
                return Failed(StepFault(cause="infrastructure", message="storage away"))
            if drawn < 0.11:
                return Failed(StepFault(cause="memory", message="out of memory"))
            if drawn < 0.12:
                return Failed(StepFault(cause="user", message="bad data"))
            if drawn < 0.17:
                return "stopped"
        if isinstance(request.settings, RegisterSettings):
            settings = request.settings
            wanted = _wanted(request, settings, "adapter", {})
            return UnderLocks(
                refs=rows_of(request, settings.model, settings.alias),
                decide=lambda states, _now: Completed(*register(request, settings.model, settings.alias, wanted, states)),
                further=lambda states: further_rows(request, settings.model, settings.alias, states),
            )
        name = f"{request.job_id}/{request.step}/{request.attempt}"
        digest = hashlib.sha256(name.encode()).hexdigest()
        outputs = {output: ArtifactRef(uri=f"/{name}", sha256=digest, size=1) for output in OUTPUTS_OF[request.kind]}
        facts = {"dataset_sha256": digest} if request.kind == "prepare" else {}
        extra = [decision(request, FeedbackRecorded, **_FEEDBACK)] if request.kind == "label" else []
        return Completed(StepResult(outputs=outputs, facts=facts, metrics={"loss": 0.5}), extra)


_FEEDBACK: Mapping[str, object] = {
    "judge": "rules", "candidates": 4, "comparisons": 2, "pairs": 1, "ties": 1, "invalid": 0, "agreement": None,
    "position_consistency": None, "longer_preferred": None,
}  # fmt: skip
