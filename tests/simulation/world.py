"""One run: outsiders, four services and everything that may happen to them, in an order that the seed draws."""

import random
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from schemas import ids
from schemas.attributes import PREFIX
from schemas.base import EventData
from schemas.envelope import Event
from schemas.ids import root_traceparent
from schemas.requests import JobCancelRequested, JobControlRequested, JobRequested
from schemas.steps import Policy
from schemas.topics import JOBS, MODELS, REQUESTS
from services.chassis.executor import worker
from services.chassis.executor.attempts import ExecutorDomain
from services.chassis.executor.work import WorkEffects
from services.chassis.kafka import publisher
from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel import statements, store, ticker
from services.chassis.kernel.aggregate import is_own
from services.chassis.kernel.consuming import consumer, polls, positioning, reporting, seeking
from services.chassis.kernel.consuming.identity import guard
from services.chassis.kernel.deadletters import repository
from services.chassis.kernel.deadletters.limit import LimitReached
from services.chassis.kernel.operations import discards, handling
from services.chassis.kernel.operations.discards import learn_discards
from services.chassis.kernel.records import event_in, named, record_id_of
from services.chassis.kernel.transaction import batch, commands, inbox
from services.chassis.kernel.transaction.batch import RecordFailure
from services.chassis.kernel.transaction.own_events import OwnEvents
from services.chassis.process import transient
from services.chassis.process.repeated_failures import FailureLog
from services.chassis.replay import fold as folding
from services.chassis.replay import reading as reading_ahead
from services.chassis.replay import skipped as skipping
from services.chassis.replay.fence import fence
from services.chassis.replay.fold import Fold
from services.chassis.replay.projection import Folding
from services.chassis.replay.restore import _keep
from services.chassis.replay.skipped import SkippedRecords
from services.orchestrator.domain.job import JobDomain
from services.registry.domain.models import RegistryDomain
from tests.log import HeldRecord
from tests.simulation import person
from tests.simulation.clock import WrongClock
from tests.simulation.database import Connection, Database
from tests.simulation.log import LOGGED, TOPICS, MemoryLog
from tests.simulation.poison import Poison, Poisoned
from tests.simulation.promises import (
    Broken,
    Trapped,
    differences,
    discard_faults,
    effects_of,
    given_up,
    history_of,
    log_faults,
    not_decided_on,
    replay_differences,
    to_apply,
    unanswered,
)
from tests.simulation.rules import SOUND, Rules
from tests.simulation.service import Process, Service
from tests.simulation.turns import Task
from tests.simulation.weather import Weather

POLICY = Policy(
    infrastructure_retries=2, memory_retries=1, user_retries=0, backoff_seconds=3, backoff_limit_seconds=6,
    step_timeout_seconds=60, cancel_grace_seconds=15,
)  # fmt: skip
SHORT = [
    {"name": "prepare", "kind": "prepare"},
    {"name": "train", "kind": "train", "method": "sft", "inputs": {"dataset": "prepare.dataset"}},
    {"name": "register", "kind": "register", "inputs": {"adapter": "train.adapter"}},
]
LONG = [
    *SHORT[:2],
    {"name": "sample", "kind": "sample", "inputs": {"dataset": "prepare.dataset", "adapter": "train.adapter"}},
    {"name": "label", "kind": "label", "inputs": {"candidates": "sample.candidates"}},
    {"name": "align", "kind": "train", "method": "dpo",
     "inputs": {"preferences": "label.preferences", "adapter": "train.adapter"}},
    {"name": "register", "kind": "register", "inputs": {"adapter": "align.adapter"}},
]  # fmt: skip
FAULTY_STEPS = 1500
WINDOW = timedelta(seconds=25)
"""The window in which a producer's duplicate is recognised: short, so that some are sent after it."""
STEPS_AT_MOST = 40_000


@dataclass(frozen=True)
class Summary:
    """The figures of a run that kept every promise."""

    events: int
    steps: int
    happened: dict[str, int]
    letters: Counter[str]
    """Number of dead letters by state, and their results."""
    types: Counter[str]
    """Number of records in the log by event type."""
    digest: int
    """Digest of the whole log; the same seed gives the same digest."""


class World:
    """Everything that exists in a run."""

    def __init__(self, seed: int, rules: Rules = SOUND, *, poisonous: bool = True, controls: bool = False) -> None:
        """`poisonous`: some records cannot be handled, or read. `controls`: jobs are retried, paused, resumed and reprioritised."""
        self.seed, self.rules = seed, rules
        self.weather = Weather(seed)
        self.clock, self.chance = self.weather.clock, self.weather.chance
        self.log = MemoryLog(self.clock, random.Random(seed + 1))
        self.history: deque[str] = deque(maxlen=60)
        self.happened: dict[str, int] = {}
        self.letters = Counter[str]()
        self._ids = 0
        self.fault: Exception | None = None
        self.services = [
            self.service("orchestrator", JobDomain(POLICY), (REQUESTS, JOBS)),
            self.service("trainer", ExecutorDomain("trainer"), (JOBS,), executes=True),
            self.service("feedback", ExecutorDomain("feedback"), (JOBS,), executes=True),
            self.service("registry", RegistryDomain(), (JOBS, MODELS), executes=True),
        ]
        self.jobs: dict[str, Event] = {}
        self.to_come = self.chance.randint(1, 3)
        self.operators: dict[str, Task] = {}
        """Running verifies and rebuilds by service."""
        self.poison = Poison(self.weather, 0.02 if poisonous else 0.0)
        self._controls = controls
        self._started = -1
        self._roles: list[tuple[Process, str]] = []
        self.losses = 1 if self.chance.random() < 0.4 else 0
        self.raises = self.chance.randint(0, 2)

    def service(self, name: str, domain: Any, topics: tuple[Any, ...], *, executes: bool = False) -> Service:
        """Create a service with its own database and clock."""
        ahead = timedelta(seconds=self.chance.choice((0, 0, -7200, -13, 13, 7200)))
        database = Database(WrongClock(self.clock, ahead), self.rules)
        names = tuple(topic.name for topic in topics)
        effects = WorkEffects() if executes else None
        return Service(name, domain, effects, names, database, self.log, self.weather, executes)

    # -- actions of outsiders
    # ------------------------------------------------------------------------------------------------
    def new_id(self) -> str:
        self._ids += 1
        return f"e{self._ids:05d}"

    def outside(self, data: EventData, event_id: str | None = None) -> Event:
        """Return an event of an outsider, who has another clock and may reuse an id."""
        used = list(self.jobs.values())
        if event_id is None and used and self.chance.random() < 0.15:
            event_id = self.chance.choice(used).id
        event_id = event_id or self.new_id()
        return Event(
            id=event_id, source="relaycore", subject="", time=self.clock.now + timedelta(seconds=self.chance.randint(-5, 5)),
            data=data, sequence=None, correlation_id=str(getattr(data, "job_id", "")), causation_id=None,
            traceparent=root_traceparent("relaycore", event_id),
        )  # fmt: skip

    def request(self) -> None:
        """Request a new job, sometimes one that cannot be accepted."""
        job_id = f"job-{len(self.jobs)}"
        steps = LONG if self.chance.random() < 0.35 else SHORT
        request: dict[str, Any] = {
            "job_id": job_id, "requester": "relaycore", "pipeline": steps, "base_model": "/base",
            "dataset": {"reference": "/data"}, "register_as": self.chance.choice(("router", "writer")),
        }  # fmt: skip
        drawn = self.chance.random()
        if drawn < 0.08:
            del request["dataset"]
        elif drawn < 0.2:
            request["deadline"] = (
                self.services[0].database.clock.now + timedelta(seconds=self.chance.randint(20, 90))
            ).isoformat()
        self.jobs[job_id] = self.outside(JobRequested(job_id=job_id, request=request))
        self.publish(self.jobs[job_id])
        self.to_come -= 1

    def publish(self, event: Event) -> None:
        """Publish an event, mostly with the services' partitioner."""
        self.log.publish(event, anywhere=self.chance.random() < 0.35)

    def again(self) -> None:
        """Send the same record, the same request under a new id, or another request under the old job id again."""
        known = self.chance.choice(list(self.jobs.values()))
        data = known.data
        assert isinstance(data, JobRequested)
        drawn = self.chance.random()
        if drawn < 0.4:
            self.publish(known)
        elif drawn < 0.6:
            self.publish(self.outside(data))
        else:
            other = {**data.request, "requester": "somebody else"}
            self.publish(self.outside(JobRequested(job_id=data.job_id, request=other)))

    def cancel(self) -> None:
        """Cancel a job, or one that nobody requested yet."""
        job_id = f"job-{self.chance.randrange(len(self.jobs) + 1)}" if self.chance.random() < 0.1 else None
        data = JobCancelRequested(job_id=job_id or self.chance.choice(list(self.jobs)), requester="relaycore")
        self.publish(self.outside(data))

    def control(self) -> None:
        """Ask to control a job, mostly to go on with it."""
        control = self.chance.choice(("retry", "retry", "pause", "resume", "resume", "priority", "checkpoint"))
        priority = self.chance.randint(-2, 2) if control == "priority" else None
        job_id = self.chance.choice(list(self.jobs))
        data = JobControlRequested(job_id=job_id, control=control, priority=priority, requester="relaycore")
        self.publish(self.outside(data))

    def garbage(self) -> None:
        """Write an unreadable record under a key that is in use."""
        self.log.garbage(self.chance.choice(TOPICS).name, self.chance.choice(list(self.jobs)).encode())

    # -- faults of services -----------------------------------------------------------------------------------------
    def kill(self) -> None:
        """Kill a process at its present step."""
        service = self.chance.choice(self.services)
        service.kill(self.chance.choice(service.processes))

    def rebalance(self) -> None:
        """Move a partition to the other member; its former owner believes for a while that it still has it."""
        service = self.chance.choice(self.services)
        partition = self.chance.choice(sorted(self.log.ends(service.topics)))
        self.move(service, partition, self.chance.choice(service.processes))

    def move(self, service: Service, partition: Any, to: Process) -> None:
        if not to.member.has(partition):
            service.rebalance(partition, to)

    def notice(self) -> None:
        """Tell a member that it has lost a partition."""
        service = self.chance.choice(self.services)
        for partition in sorted(self.log.ends(service.topics)):
            having = [process for process in service.processes if process.member.has(partition)]
            if len(having) > 1:
                self.chance.choice(having).member.revoke(partition)

    def lose_session(self) -> None:
        """End a session of the database, that of a relay or that of a transaction."""
        service = self.chance.choice(self.services)
        if self.chance.random() < 0.5 and service.relaying is not None:
            service.relaying.lose_session()
        elif service.database.open and not service.away:
            self.chance.choice(service.database.open).lost = True

    def lose_answer(self) -> None:
        """Commit a transaction without an answer to its process."""
        service = self.chance.choice(self.services)
        if service.database.open and not service.away:
            self.chance.choice(service.database.open).answer_lost = True

    def bad_release(self) -> None:
        """Give a service a version that can handle few records."""
        self.poison.bad_release(self.chance.choice(self.services).name)

    def see_to_letters(self) -> None:
        """Retry or discard a dead letter, as an operator does."""
        service = self.chance.choice(self.services)
        if person.to_be_seen_to(service) and (name := f"letters of {service.name}") not in self.operators:
            self.operators[name] = Task(name, person.meddle(service, self.weather))

    def hang(self) -> None:
        """Let a database stop answering a transaction."""
        service = self.chance.choice(self.services)
        if service.database.open and not service.away:
            self.chance.choice(service.database.open).hangs = True

    def freeze(self) -> None:
        """Freeze a process for longer than its leases, its session and its membership in the group."""
        service = self.chance.choice(self.services)
        self.chance.choice(service.processes).freeze(self.chance.uniform(1, 40))

    def raise_partitions(self) -> None:
        """Raise the partitions of a topic, as an operator does; services notice it one after the other."""
        if self.raises:
            self.raises -= 1
            self.log.add_partitions(self.chance.choice(TOPICS).name, self.chance.randint(1, 3))

    def notice_partitions(self) -> None:
        """Refresh the metadata of a service's clients."""
        self.chance.choice(self.services).notice_partitions()

    def operate(self) -> None:
        """Verify or rebuild a projection while it serves, as an operator does."""
        service = self.chance.choice(self.services)
        if service.name not in self.operators and not service.away:
            rebuild = self.chance.random() < 0.5
            self.operators[service.name] = Task(f"replay of {service.name}", self.replay(service, swap=rebuild))

    def lose_database(self) -> None:
        """Lose a database with its outbox and leases; the service starts with an empty one."""
        if self.losses:
            self.losses -= 1
            leaving_out = [service for service in self.services if given_up(service)]
            service = self.chance.choice(leaving_out or self.services)
            for name in (service.name, f"letters of {service.name}"):
                if task := self.operators.pop(name, None):
                    task.kill()
            service.lose_database()
            if not self.rules.restores:
                service.away = False
                return
            self.operators[service.name] = Task(f"restore of {service.name}", self.restore(service))

    def now_and_here(self, steps: Any) -> None:
        """Run a coroutine to its end without turns of other tasks."""
        task = Task("alone", steps)
        while not task.done:
            task.go_on()

    def jump(self) -> None:
        """Let time pass without events, so that leases expire and deadlines pass."""
        self.clock.pass_by(self.chance.choice((2, 5, 13, 30, 70)))

    # -- replays ----------------------------------------------------------------------------------------------------------
    def fold(self, service: Service, aside: SkippedRecords | None = None) -> tuple[Fold, Database]:
        shadow = Database(self.clock)
        return Fold(cast(Any, shadow), Folding(Trapped(service.domain)), Cluster("memory"), skipped=aside), shadow

    async def replay(self, service: Service, *, swap: bool) -> None:
        """Replay like `replay.rebuild`: catch up while the service runs, then under the fence; compare, and swap in if
        requested."""
        fold, shadow = self.fold(service)
        async with service.database.connect() as reading:
            positions = await store.positions(cast(Any, reading))
            await fold.up_to(positions, await repository.record_ids(cast(Any, reading)))
        async with fence(service.engine, service.domain.aggregates) as still:
            withheld = await repository.record_ids(still.connection)
            if fold.left_out - withheld:  # retried meanwhile, so the live rows have them and the shadow does not
                return
            await fold.up_to(still.positions, withheld)
            await fold.ahead(self.log.ends(service.topics), still.waiting)
            self.compare(service, shadow, "under the fence")
            if swap:
                cast(Connection, still.connection).swap(shadow, sorted(service.domain.aggregates))

    async def restore(self, service: Service) -> None:
        """Start a service: learn the discards and fill an empty database from the log while others run, again if an own
        event cannot be folded yet; only then the service begins."""
        await learn_discards(service.engine, Cluster("memory"), service.domain.source)
        while not await self.restored(service):
            await self.weather.wait(5)
        service.away = False

    async def restored(self, service: Service) -> bool:
        """Restore, like `replay.restore`."""
        aside = SkippedRecords(Folding(Trapped(service.domain)))
        fold, shadow = self.fold(service, aside)
        withheld = given_up(service)
        try:
            while True:
                ends = self.log.ends(service.topics)
                known = {partition: records[: ends.get(partition, 0)] for partition, records in self.log.partitions.items()}
                await fold.up_to(ends, set(withheld))
                if not fold.early or ends == self.log.ends(service.topics):
                    break
        except RecordFailure as failure:
            if isinstance(failure.error, Poisoned):
                return False
            raise
        fold.complete()
        async with service.database.begin() as connection:
            connection.adopt(shadow, ends)
            await _keep(cast(Any, connection), aside)
            for partition in ends:
                await repository.flag(cast(Any, connection), partition)
            connection.swap(shadow, sorted(service.domain.aggregates))
            set_aside = {(str(row["topic"]), int(str(row["partition"])), int(str(row["offset"]))) for row in aside.letters}
            connection.note(to_apply(service, known, withheld | set_aside))
        return True

    def compare(self, service: Service, shadow: Database, when: str) -> None:
        found = differences(service.domain.aggregates, service.database.tables, shadow.tables)
        if found:
            raise Broken(f"{service.name}, {when}: {'; '.join(found[:3])}")

    def interleaved(self, service: Service) -> Iterator[HeldRecord]:
        """Return the whole log of a service, in order per partition, with partitions in any order."""
        left = {partition: deque(self.log.partitions[partition]) for partition in self.log.ends(service.topics)}
        while left := {partition: records for partition, records in left.items() if records}:
            records = left[self.chance.choice(list(left))]
            for _ in range(self.chance.randint(1, 10)):
                if records:
                    yield records.popleft()

    # -- the run ----------------------------------------------------------------------------------------------------------
    def weigh(self) -> list[tuple[float, Any]]:
        """Return the actions and faults that may happen now, with their weights."""
        if not self.jobs:
            return [(1, self.request)]
        return [
            (3.0 if self.to_come else 0, self.request), (1.0, self.again), (0.4, self.cancel), (1.5, self.kill), (2.5, self.rebalance),
            (3.0, self.notice), (1.5, self.lose_session), (0.7, self.operate), (0.5 if self.losses else 0, self.lose_database),
            (1.2, self.jump), (0.5, self.hang), (0.5, self.freeze), (0.6 if self.raises else 0, self.raise_partitions),
            (0.8 if self.grown() else 0, self.notice_partitions), (0.8, self.lose_answer), *self.weigh_poison(),
            *([(2.0, self.control)] if self._controls else []),
        ]  # fmt: skip

    def weigh_poison(self) -> list[tuple[float, Any]]:
        if not self.poison.share:
            return []
        open_letters = sum(len(person.letters(service)) for service in self.services)
        return [(0.4, self.garbage), (0.3, self.bad_release), (3.0 if open_letters else 0, self.see_to_letters)]

    def grown(self) -> bool:
        """Return whether some service does not know all partitions."""
        counts = {topic.name: self.log.count(topic.name) for topic in LOGGED}
        return any(service.counts != counts for service in self.services)

    def happen(self) -> None:
        """Let one random action or fault happen."""
        weights = self.weigh()
        (what,) = self.chance.choices([what for _, what in weights], [weight for weight, _ in weights])
        self.happened[what.__name__] = self.happened.get(what.__name__, 0) + 1
        self.history.append(f"{self.clock.seconds:8.1f}  * {what.__name__}")
        what()

    def run(self) -> Summary:
        """Run with faults for a while, then without them until nothing is left to do. Raises Broken."""
        with self.environment():
            steps = FAULTY_STEPS
            for _ in range(FAULTY_STEPS):
                if not self.jobs or self.chance.random() < 0.03:
                    self.happen()
                elif not (self.go_on() or self.anything_left()):
                    self.to_next_moment()
                self.clock.pass_by(0.02)
            self.calm()
            while self.go_on() or self.anything_left() or self.clear_letters() or self.to_next_moment():
                steps += 1
                if steps > STEPS_AT_MOST:
                    raise Broken(f"not quiet after {steps} steps: {self.unrest()}")
            self.check()
        records = sum(len(records) for records in self.log.partitions.values())
        content = [
            (p, [(r.key, r.value, r.headers) for r in records]) for p, records in sorted(self.log.partitions.items())
        ]
        types = Counter(
            value.decode().removeprefix(PREFIX)
            for _, written in content
            for _, _, headers in written
            for name, value in headers
            if name == "ce_type" and value
        )
        return Summary(records, steps, self.happened, self.letters, types, zlib.crc32(repr(content).encode()))

    def go_on(self) -> bool:
        """Run one step of a random task that can continue; False if none was found at once."""
        roles, draw = self.roles(), self.chance.random
        for _ in range(8):
            if self.operators and draw() < 0.15:
                if self._operate_on(self.chance.choice(sorted(self.operators))):
                    return True
                continue
            if self._go_on(*roles[int(draw() * len(roles))]):
                return True
        return False

    def anything_left(self) -> bool:
        """Run one step of the first task that can continue, in an order that starts at a random place."""
        roles = self.roles()
        first = int(self.chance.random() * len(roles))
        for number in range(first, first + len(roles)):
            if self._go_on(*roles[number % len(roles)]):
                return True
        return any(self._operate_on(name) for name in sorted(self.operators))

    def roles(self) -> list[tuple[Process, str]]:
        """Return the roles of all processes."""
        started = sum(service.started for service in self.services)
        if started != self._started:
            self._started = started
            self._roles = [
                (process, role) for service in self.services for process in service.processes for role in process.tasks
            ]
        return self._roles

    def clear_letters(self) -> bool:
        """Handle one dead letter after the other, as a patient operator does."""
        service = next((service for service in self.services if person.to_be_seen_to(service)), None)
        if service is None:
            return False
        self.operators[f"letters of {service.name}"] = Task("letters", person.clear(service))
        return True

    def _go_on(self, process: Process, role: str) -> bool:
        went = process.go_on(role)
        if self.fault is not None:
            raise Broken(f"{process.service.name}: {type(self.fault).__name__}: {self.fault}") from self.fault
        return went

    def _operate_on(self, name: str) -> bool:
        task = self.operators[name]
        if not task.done and not task.ready():
            return False
        if not task.done:
            with suppress(ConnectionError, TimeoutError):
                task.go_on()
        if task.done:
            del self.operators[name]
        return True

    def to_next_moment(self) -> bool:
        """Let time pass until a task can continue; False if there is no such time."""
        now = self.clock.now
        moments = [
            self.clock.now + timedelta(seconds=at - self.clock.seconds)
            for at in self.weather.alarms
            if at > self.clock.seconds
        ]
        self.weather.alarms = [at for at in self.weather.alarms if at > self.clock.seconds]
        for service in self.services:
            said: list[datetime] = []
            for name in service.domain.aggregates:
                said += [row["due_at"] for row in service.database.rows(name).values() if row["due_at"]]
            for row in service.database.rows("work").values():
                said += [moment for moment in (row["not_before"], row["leased_until"]) if moment]
                if row["not_before"] and not _as_the_policy_says(row["not_before"] - row["entered_at"]):
                    raise Broken(f"{service.name}: a retry waits {row['not_before'] - row['entered_at']}")
            stops = [until for process in service.processes for until in process.stops()]
            moments += [now + timedelta(seconds=until - self.clock.seconds, milliseconds=1) for until in stops]
            clock = service.database.clock
            assert isinstance(clock, WrongClock)
            moments += [clock.true(moment) for moment in said]
        later: list[datetime] = [moment for moment in moments if moment > now]
        if not later:
            return False
        self.clock.reach(min(later))
        return True

    def calm(self) -> None:
        """End all faults: no process is frozen, and every partition has one member that knows it."""
        self.weather.faulty = False
        self.poison.calm()
        for job_id in self.jobs if self._controls else ():  # a paused job would never end
            self.publish(self.outside(JobControlRequested(job_id=job_id, control="resume", requester="relaycore")))
        self.history.append(f"{self.clock.seconds:8.1f}  * calm")
        for service in self.services:
            service.notice_partitions()
            for process in service.processes:
                process.frozen_until = 0.0
            for partition in sorted(self.log.ends(service.topics)):
                having = [process for process in service.processes if process.member.has(partition)]
                for process in having[1:]:
                    process.member.revoke(partition)

    def unrest(self) -> str:
        return ", ".join(
            f"{service.name}-{process.number} {role}"
            for service in self.services
            for process in service.processes
            for role, task in process.tasks.items()
            if task is not None and not task.done
        )

    def check(self) -> None:
        """Check everything that must hold at the end of a run."""
        found = log_faults(self.log.partitions) + not_decided_on(self.services[0], self.log.partitions)
        left_out = {service.name: given_up(service) for service in self.services}
        if said := unanswered(effects_of(self.log.partitions, left_out)):
            found.append(f"jobs and attempts: {said}")
        for service in self.services:
            if said := unanswered(history_of(service, self.log.partitions)):
                found.append(f"{service.name}: {said}")
            person.expected(service)
            found += [f"{service.name}: {what}" for what in discard_faults(service, self.log.partitions)]
            if letters := person.letters(service):
                found.append(f"{service.name}: dead letters are left: {[place for place, _ in letters][:3]}")
            for table in ("outbox", "work", "sweep"):
                if left := service.database.rows(table):
                    found.append(f"{service.name}: {table} still holds {sorted(left)[:3]}")
            for partition, end in self.log.ends(service.topics).items():
                position = service.database.rows("position").get(partition, {"next_offset": 0})["next_offset"]
                if position != end:
                    found.append(f"{service.name}: {partition[0]}:{partition[1]} is applied up to {position} of {end}")
            if not found:
                found += [f"{service.name}: {what}" for what in replay_differences(service, self.interleaved(service))]
        if not found:
            for service in self.services:
                self.now_and_here(self.replay(service, swap=False))
        if found:
            raise Broken("; ".join(found[:4]))

    def tell(self, event: Event, who: str) -> None:
        """Keep the latest decisions, for the message of a failure."""
        number = "" if event.sequence is None else f" #{event.sequence}"
        about = event.subject or event.correlation_id
        self.history.append(f"{self.clock.seconds:8.1f}  {who}: {event.type}{number} {about} ({event.id})")

    @contextmanager
    def environment(self) -> Iterator[None]:
        """Run the chassis with the simulation's clock, randomness and loop."""
        applied, written, taken = batch.apply_batch, commands.write_back, batch.fold_record
        insert, remove, discard = repository.insert, repository.remove, repository.discard

        async def inserted(connection: Any, letters: Any) -> None:
            self.letters.update(row["state"] for row in letters)
            await insert(connection, letters)

        async def removed(connection: Any, place: Any) -> None:
            self.letters["retried"] += 1
            await remove(connection, place)

        async def given(connection: Any, *rest: Any) -> None:
            self.letters["discarded"] += 1
            await discard(connection, *rest)

        async def apply(*given: Any, **more: Any) -> Any:
            try:
                return await applied(*given, **more)
            except (ConnectionError, TimeoutError):
                raise
            except Exception as error:
                if not isinstance(cause := getattr(error, "error", error), Poisoned | LimitReached):
                    self.fault = cause
                raise

        async def write_back(connection: Any, unit: Any, *rest: Any, **options: Any) -> Any:
            rows = await written(connection, unit, *rest, **options)
            for event in unit.emitted:
                self.tell(event, unit.domain.source.removeprefix("neuroweaver/"))
            return rows

        def fold_record(unit: Any, record: Any, event: Event, *, repeated: bool) -> None:
            self.log.lying[id(event)] = record_id_of(record)
            name = unit.domain.source.removeprefix("neuroweaver/")
            self.poison.strike(name, record_id_of(record), "fold", own=is_own(unit.domain, event))
            taken(unit, record, event, repeated=repeated)

        def set_aside(unit: Any, record: Any, event: Event, *, repeated: bool) -> None:
            name = unit.domain.source.removeprefix("neuroweaver/")
            self.poison.strike(name, record_id_of(record), "fold", own=is_own(unit.domain, event), hopeless=False)
            taken(unit, record, event, repeated=repeated)

        async def no_sleep(_seconds: float) -> None:
            return None

        async def no_pause() -> None:
            return None

        loop, clock = (
            SimpleNamespace(time=lambda: self.clock.seconds),
            SimpleNamespace(monotonic=lambda: self.clock.seconds),
        )
        asyncio = SimpleNamespace(sleep=no_sleep, get_running_loop=lambda: loop)
        silent = SimpleNamespace(**dict.fromkeys(("debug", "info", "warning", "error", "exception"), _say_nothing))
        with ExitStack() as stack:
            for target, name, value in (
                (ids, "_RANDOM", random.Random(self.seed + 2)), (batch, "new_id", self.new_id), (commands, "new_id", self.new_id),
                (publisher, "new_id", self.new_id), (publisher, "datetime", SimpleNamespace(now=lambda _zone: self.clock.now)),
                (transient, "random", random.Random(self.seed + 3)),
                (consumer, "time", clock), (positioning, "time", clock), (guard, "time", clock),
                (polls, "asyncio", asyncio), (ticker, "asyncio", asyncio),
                (FailureLog, "failed", _say_nothing), (consumer, "_log", silent), (positioning, "_log", silent), (reporting, "_log", silent), (ticker, "_log", silent), (worker, "_log", silent),
                (polls, "apply_batch", apply), (commands, "write_back", write_back), (batch, "write_back", write_back), (handling, "write_back", write_back),
                (folding, "log", self.log), (folding, "read_ahead", lambda chunks: chunks), (reading_ahead, "give_way", no_pause), (seeking, "which_log", self.log.which), (batch, "fold_record", fold_record),
                (skipping, "fold_record", set_aside), (batch, "event_in", self.opening()), (OwnEvents, "take", self.taking()), (handling, "event_in", self.opening(again=True)),
                (repository, "insert", inserted), (repository, "remove", removed), (repository, "discard", given),
                (discards, "log", self.log), (discards, "ask_once", self.log.asked),
                (inbox, "INBOX_WINDOW", WINDOW), (statements, "INBOX_WINDOW", WINDOW),
            ):  # fmt: skip
                stack.enter_context(patch.object(target, name, value))
            yield

    def opening(self, *, again: bool = False) -> Callable[..., Any]:
        """Return an `event_in` for live services that fails for some records, as a bug would.

        `again`: for retries of dead letters.
        """
        domains = {id(service.domain.handles): service.domain for service in self.services}

        def opened(record: Any, handles: Any) -> Any:
            event = event_in(record, handles)
            if isinstance(event, Event) and (domain := domains.get(id(handles))):
                name = domain.source.removeprefix("neuroweaver/")
                if again:
                    self.poison.meet_again(name, record_id_of(record))
                self.poison.strike(name, record_id_of(record), "open", own=is_own(domain, event))
            return event

        return opened

    def taking(self) -> Callable[..., Any]:
        """`OwnEvents.take`: what it recognises must be what decoding gives."""
        taken, opened = OwnEvents.take, self.opening()

        def take(own: OwnEvents, record: Any, handles: Any) -> Any:
            event = taken(own, record, handles)
            if event is not None and (decoded := opened(record, handles)) != event:
                raise Broken(f"{named(record_id_of(record))} was taken for {event}, and is {decoded}")
            return event

        return take


def _as_the_policy_says(wait: timedelta) -> bool:
    return POLICY.backoff_seconds <= wait.total_seconds() <= POLICY.backoff_limit_seconds


def _say_nothing(*_: object, **__: object) -> None:
    return None
