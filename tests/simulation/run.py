"""One run: jobs are asked for, four services do them, and until a moment that the seed draws everything goes wrong that can.

Then faults stop, everything must come to its end, and the whole is checked.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from schemas.artifacts import ArtifactRef
from schemas.base import EventData
from schemas.envelope import Event
from schemas.ids import root_traceparent
from schemas.jobs import (
    JobCancelled,
    JobCompleted,
    JobFailed,
    JobRejected,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepFault,
    StepResult,
    StepStarted,
)
from schemas.models import Lineage, ModelRegistered
from schemas.requests import JobCancelRequested, JobRequested
from schemas.steps import OUTPUTS_OF, Policy, RegisterSettings
from schemas.topics import EVENT_TYPES, JOBS, MODELS, REQUESTS
from services.chassis.aggregate import Decision, Ref
from services.chassis.executor.attempts import AttemptState, ExecutorDomain, attempt_ref, decision
from services.chassis.records import Partition
from services.orchestrator.domain.job import JobDomain
from services.registry.domain.models import RegistryDomain, model_ref, register, registration_ref
from tests.faults.history import Fact, Verdict, check
from tests.simulation.variants import SOUND, Variant
from tests.simulation.world import Clock, Log, Lying, Service, Work, differing, opened

_POLICY = Policy(
    infrastructure_retries=2,
    memory_retries=1,
    backoff_seconds=2,
    backoff_limit_seconds=4,
    step_timeout_seconds=150,
    cancel_grace_seconds=15,
)
_LEASE_SECONDS = 6
_STEPS = (120, 320)
"""Faults happen for so many steps at least and at most."""
_CALM_STEPS = 6000
TERMINAL = (JobCompleted, JobFailed, JobCancelled, JobRejected)


class Unsound(AssertionError):
    """A promise does not hold; says which seed, how to run it again, and what happened last."""


@dataclass
class Process:
    """One consumer of a service: what it has read and not applied yet is lost with it."""

    service: Service
    next: dict[Partition, int] = field(default_factory=dict)
    """Read without a gap from a seek up to here."""
    buffer: dict[Partition, list[Lying]] = field(default_factory=dict)
    starts: dict[Partition, int] = field(default_factory=dict)

    def seek(self) -> None:
        """To the database's positions, as after a start, a rebalance or a fault."""
        self.next = dict(self.service.database.positions)
        self.buffer, self.starts = {}, {}


@dataclass
class Worker:
    """One worker of an executor; its lease may be taken over without its knowledge."""

    service: Service
    lease: int | None = None
    key: str = ""
    started: Event | None = None
    ready_at: Any = None


@dataclass
class Run:
    """The state of a run."""

    seed: int
    variant: Variant = SOUND
    clock: Clock = field(default_factory=Clock)
    trace: list[str] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    steps: int = 0
    _leases: int = 0
    _outside: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.log = Log(self.clock)
        jobs = (REQUESTS.name, JOBS.name)
        self.services = [
            self._service("orchestrator", JobDomain(_POLICY), jobs),
            self._service("trainer", ExecutorDomain("trainer"), (JOBS.name,), executes=True),
            self._service("feedback", ExecutorDomain("feedback"), (JOBS.name,), executes=True),
            self._service("registry", RegistryDomain(), (JOBS.name, MODELS.name), executes=True),
        ]
        self.processes = [Process(service) for service in self.services for _ in range(2)]
        self.workers = [Worker(service) for service in self.services if service.executes for _ in range(2)]
        self.jobs = [f"job-{number}" for number in range(self.chance.randint(2, 4))]
        self.requested: list[Event] = []

    def _service(self, name: str, domain: Any, topics: tuple[str, ...], *, executes: bool = False) -> Service:
        return Service(name, domain, topics, self.clock, self.log, self.variant, executes=executes)

    # outsiders

    def outside(self, data: EventData, job: str) -> Event:
        """A fact of an outsider, on the log."""
        self._outside += 1
        event = Event(
            id=f"outside-{self._outside:04}", source="relaycore", subject="", time=self.clock.now, data=data, sequence=None,
            correlation_id=job, causation_id=None, traceparent=root_traceparent("relaycore", job),
        )  # fmt: skip
        number = sum(fact.key == job and fact.kind == "sent" for fact in self.facts)
        self.facts += [Fact(kind, event.id, job, number) for kind in ("sent", "acknowledged")]
        self.requested.append(event)
        self.log.append_event(event)
        return event

    def ask(self, job: str, model: str) -> None:
        """A JobRequested; the second of a job may say something else."""
        steps: list[dict[str, Any]] = [
            {"name": "prepare", "kind": "prepare"},
            {"name": "train", "kind": "train", "method": "sft", "inputs": {"dataset": "prepare.dataset"}},
            {"name": "sample", "kind": "sample", "inputs": {"dataset": "prepare.dataset", "adapter": "train.adapter"}},
            {"name": "label", "kind": "label", "inputs": {"candidates": "sample.candidates"}},
            {"name": "register", "kind": "register", "inputs": {"adapter": "train.adapter"}},
        ]
        request: dict[str, Any] = {
            "job_id": job, "requester": "relaycore", "pipeline": steps, "base_model": "/models/base",
            "dataset": {"reference": "/data"}, "register_as": model,
        }  # fmt: skip
        if self.chance.random() < 0.15:
            request["base_model"] = 7  # not valid
        self.outside(JobRequested(job_id=job, request=request), job)

    # what happens

    def step(self, faults: bool) -> None:
        """One thing happens, drawn by the seed."""
        self.steps += 1
        self.clock.pass_(self.chance.choice((0.01, 0.05, 0.3, 1.0)))
        good: list[tuple[int, Callable[[], None]]] = [
            (10, self.fetch), (12, self.apply), (8, self.relay), (4, self.tick), (10, self.work), (2, self.check_replay),
        ]  # fmt: skip
        bad: list[tuple[int, Callable[[], None]]] = [
            (2, self.new_request), (1, self.cancel), (2, self.duplicate), (2, self.kill), (2, self.rebalance),
            (1, self.swap), (1, self.lose_database), (2, self.crash_before_commit), (2, self.crash_after_commit),
            (2, self.crash_after_send), (1, self.pause),
        ]  # fmt: skip
        actions = good + bad if faults else good
        (action,) = self.chance.choices([a for _, a in actions], [w for w, _ in actions])
        action()

    def _say(self, what: str) -> None:
        self.trace.append(f"{(self.clock.now.timestamp() % 100000):9.2f} {what}")

    def new_request(self) -> None:
        """A job, a further job of the same model, or the same job once more with other words."""
        self.ask(self.chance.choice(self.jobs), self.chance.choice(("router", "helper")))

    def cancel(self) -> None:
        """Somebody wants a job to end; not often, or nothing would ever be made."""
        if self.chance.random() < 0.8:
            return
        job = self.chance.choice(self.jobs)
        self.outside(JobCancelRequested(job_id=job), job)
        self._say(f"cancel of {job}")

    def duplicate(self) -> None:
        """A producer sends again what it has sent."""
        if self.requested:
            self.log.append_event(self.chance.choice(self.requested))

    def fetch(self) -> None:
        """A process reads on in one partition."""
        process = self.chance.choice(self.processes)
        partitions = self.log.of(process.service.topics)
        if not partitions:
            return
        partition = self.chance.choice(list(partitions))
        begin = process.next.get(partition, 0)
        records = partitions[partition][begin : begin + self.chance.randint(1, 5)]
        if records:
            process.starts.setdefault(partition, begin)
            process.buffer.setdefault(partition, []).extend(records)
            process.next[partition] = begin + len(records)

    def apply(self, *, crash_before: bool = False, crash_after: bool = False) -> None:
        """A process applies what it has read, in one transaction."""
        process = self.chance.choice(self.processes)
        if not process.buffer:
            return
        service = process.service
        after = service.batch(process.buffer, process.starts)
        if after is None or crash_before:
            self._say(f"{service.name} {'dies before its commit' if crash_before else 'is rewound'}")
            process.seek()
            return
        service.database = after
        applied = ", ".join(f"{p[0].split('.')[1]}:{p[1]}:{r[0].offset}-{r[-1].offset}" for p, r in process.buffer.items())
        self._say(f"{service.name} applies {applied}")
        process.buffer, process.starts = {}, {}
        if crash_after:
            process.seek()

    def crash_before_commit(self) -> None:
        """Everything of the transaction is gone, and what was read with it."""
        self.apply(crash_before=True)

    def crash_after_commit(self) -> None:
        """The database has it, the process does not know."""
        self.apply(crash_after=True)

    def relay(self, *, crash: bool = False) -> None:
        """The first rows of an outbox go to the log, and are removed."""
        service = self.chance.choice(self.services)
        database = service.database
        rows = database.outbox[: self.chance.randint(1, 3)]
        if self.variant.unlocked_relay:
            self.chance.shuffle(rows)
        if self.variant.removed_before_sent:
            del database.outbox[: len(rows)]
            if crash:
                return
        for event in rows:
            self.log.append_event(event)
        if rows:
            self._say(f"{service.name} sends {', '.join(event.type for event in rows)}{' and dies' if crash else ''}")
        if not crash and not self.variant.removed_before_sent:
            del database.outbox[: len(rows)]

    def crash_after_send(self) -> None:
        """Sent, and not removed: it will be sent again."""
        self.relay(crash=True)

    def tick(self) -> None:
        """The ticker asks about rows that are due, and about those that a swap changed."""
        service = self.chance.choice(self.services)
        for ref, image in sorted(service.database.images.items(), key=lambda one: one[0]):
            aggregate = service.domain.aggregates[ref.aggregate]
            due = aggregate.due(image.row.state)
            if ref in service.database.sweep or (due is not None and due <= self.clock.now):
                after, unit = service.command([ref])
                unit.settle(ref)
                after.sweep.discard(ref)
                if self.variant.not_in_the_outbox and unit.emitted:
                    for event in unit.emitted:
                        self.log.append_event(event)
                    unit.emitted.clear()
                    if self.chance.random() < 0.3:
                        return
                service.finish(after, unit)

    def kill(self) -> None:
        """A process ends, and another takes its place."""
        self.chance.choice(self.processes).seek()
        worker = self.chance.choice(self.workers)
        worker.lease = None

    def rebalance(self) -> None:
        """All processes of a service seek anew."""
        service = self.chance.choice(self.services)
        for process in self.processes:
            if process.service is service:
                process.seek()

    def pause(self) -> None:
        """Nothing happens for longer than a lease."""
        self.clock.pass_(self.chance.choice((_LEASE_SECONDS + 1, _LEASE_SECONDS + 1, _LEASE_SECONDS + 1, 200)))

    # workers

    def work(self) -> None:
        """A worker claims an attempt, goes on with it, or ends it; leases run out on the way."""
        worker = self.chance.choice(self.workers)
        if worker.lease is None:
            self._claim(worker)
        elif self.clock.now >= worker.ready_at:
            self._conclude(worker)
        elif self.chance.random() < 0.6:
            self._renew(worker)

    def _claim(self, worker: Worker) -> None:
        service, database = worker.service, worker.service.database
        free = [key for key, row in sorted(database.work.items()) if row.until is None or row.until <= self.clock.now]
        if not free:
            return
        key = self.chance.choice(free)
        self._leases += 1
        lease = self._leases
        database.work[key] = replace(
            database.work[key], lease=lease, until=self.clock.now + timedelta(seconds=_LEASE_SECONDS)
        )
        ref = _ref(key)
        after, unit = service.command([ref])
        state = unit.states[ref]
        assert isinstance(state, AttemptState)
        if state.requested is None or state.outcome:
            after.work.pop(key, None)
            service.database = after
            return
        if state.cancel_requested:
            unit.apply(decision(state.requested, StepCancelled))
            service.finish(after, unit)
            return
        worker.started = unit.apply(decision(state.requested, StepStarted, worker="w"))
        service.finish(after, unit)
        worker.lease, worker.key = lease, key
        worker.ready_at = self.clock.now + timedelta(seconds=self.chance.choice((0.1, 2, 5, 20)))

    def _renew(self, worker: Worker) -> None:
        row = worker.service.database.work.get(worker.key)
        if row is None or row.lease != worker.lease:
            worker.lease = None
            return
        worker.service.database.work[worker.key] = replace(row, until=self.clock.now + timedelta(seconds=_LEASE_SECONDS))

    def _conclude(self, worker: Worker) -> None:
        service, ref, lease = worker.service, _ref(worker.key), worker.lease
        worker.lease = None
        state = service.database.images[ref].row.state if ref in service.database.images else None
        if not isinstance(state, AttemptState) or state.requested is None:
            return
        request, settings = state.requested, state.requested.settings
        extra: list[Ref] = []
        if isinstance(settings, RegisterSettings):
            extra = [model_ref(settings.model), registration_ref(request.job_id, request.step)]
        after, unit = service.command([ref, *extra])
        held = after.work.get(worker.key)
        if (held is None or held.lease != lease) and not self.variant.no_lease_check:
            return
        state = unit.states[ref]
        assert isinstance(state, AttemptState)
        if state.cancel_requested:
            unit.apply(decision(request, StepCancelled))
        else:
            for decided in self._outcome(request, unit):
                unit.apply(decided, worker.started)
        self._say(f"{service.name} ends {worker.key}")
        service.finish(after, unit)

    def _outcome(self, request: Any, unit: Any) -> list[Decision]:
        fate = self.chance.random()
        if fate < 0.12:
            cause = self.chance.choice(("infrastructure", "infrastructure", "memory", "user"))
            return [decision(request, StepFailed, fault=StepFault(cause=cause, message="it broke"))]
        digest = f"{self.chance.getrandbits(256):064x}"
        artifact = ArtifactRef(uri=f"/artifacts/{digest}", sha256=digest, size=1)
        if not isinstance(request.settings, RegisterSettings):
            result = StepResult(outputs=dict.fromkeys(OUTPUTS_OF[request.kind], artifact))
            return [decision(request, StepCompleted, result=result)]
        settings = request.settings
        adapter = request.inputs["adapter"]
        lineage = Lineage(
            job_id=request.job_id, step=request.step, requester=request.requester, base_model=settings.base_model,
            base_model_sha256=None, dataset_sha256=adapter.sha256, results=request.results,
        )  # fmt: skip
        wanted = ModelRegistered(model=settings.model, version="", artifact=adapter, lineage=lineage, metrics={})
        result, decisions = register(request, settings.model, settings.alias, wanted, unit.states)
        return [*decisions, decision(request, StepCompleted, result=result)]

    # the log against the databases

    def check_replay(self) -> None:
        """At any moment a replay says what the live database says."""
        service = self.chance.choice(self.services)
        rows, _ = service.replayed(self.chance, service.database.positions, ahead=True)
        if found := differing(service.database.images, rows):
            raise Unsound(f"{service.name}: a replay differs: {'; '.join(found[:3])}")

    def swap(self) -> None:
        """A rebuild takes the place of the live rows; inbox, outbox, work and positions stay."""
        service = self.chance.choice(self.services)
        rows, _ = service.replayed(self.chance, service.database.positions, ahead=not self.variant.swap_without_own)
        before = service.database.images
        after = service.database.copy()
        after.images = {}
        after.save(rows)
        after.sweep |= {ref for ref in rows if ref not in before or before[ref].state != after.images[ref].state}
        service.database = after
        self._say(f"{service.name} is rebuilt")

    def lose_database(self) -> None:
        """The database is gone with everything in it; a new one is filled from the log (`replay/restore.py`)."""
        service = self.chance.choice(self.services)
        outbox = service.database.outbox
        service.database = type(service.database)()
        if not self.variant.lost_without_restore:
            ends = {partition: len(records) for partition, records in self.log.of(service.topics).items()}
            rows, inbox = service.replayed(self.chance, ends, ahead=False)
            service.database.positions, service.database.inbox = ends, inbox
            service.database.save(rows)
            service.database.sweep |= rows.keys()
            for ref, row in rows.items():  # `work.take_up`
                if isinstance(row.state, AttemptState) and row.state.requested is not None and not row.state.outcome:
                    service.database.work[ref.key] = Work()
        for process in self.processes:
            if process.service is service:
                process.seek()
        for worker in self.workers:
            if worker.service is service:
                worker.lease = None
        self._say(f"{service.name} loses its database, {len(outbox)} unsent events with it")

    # the whole

    def go(self) -> "Run":
        """Run to the end and check everything. Raises Unsound."""
        try:
            for job in self.jobs:
                self.ask(job, "router")
            for _ in range(self.chance.randint(*_STEPS)):
                self.step(faults=True)
            self._say("faults end")
            for process in self.processes:
                process.seek()
            for _ in range(_CALM_STEPS):
                self.step(faults=False)
                if self.steps % 50 == 0 and self.at_rest():
                    break
            self.check()
        except Unsound as fault:
            raise self._with_seed(fault) from None
        except Exception as fault:
            raise self._with_seed(Unsound(f"{type(fault).__name__}: {fault}")) from fault
        return self

    def _with_seed(self, fault: Unsound) -> Unsound:
        last = "\n".join(self.trace[-25:])
        return Unsound(
            f"seed {self.seed}: {fault}\nrun it again: python -m tests.simulation.soak --seed {self.seed}\n{last}"
        )

    def at_rest(self) -> bool:
        """Nothing is on its way, and nobody has anything to do."""
        for service in self.services:
            database = service.database
            if database.outbox or database.work or database.sweep:
                return False
            for partition, records in self.log.of(service.topics).items():
                if database.positions.get(partition, 0) < len(records):
                    return False
            for ref, image in database.images.items():
                if service.domain.aggregates[ref.aggregate].due(image.row.state) is not None:
                    return False
        return True

    def check(self) -> None:
        """Every promise."""
        if not self.at_rest():
            raise Unsound("work does not come to its end")
        for service in self.services:
            for _ in range(3):  # any interleaving
                ends = service.database.positions
                rows, _ = service.replayed(self.chance, ends, ahead=True)
                if found := differing(service.database.images, rows):
                    raise Unsound(f"{service.name}: a replay differs: {'; '.join(found[:3])}")
        self._check_log()
        if not (verdict := self.verdict()).well:
            raise Unsound(f"history: {verdict}")

    def _events(self, topic: str) -> list[Event]:
        """Events on a topic, each once: a reader knows a record that was sent again by its id."""
        seen: dict[tuple[str, str], Event] = {}
        for records in self.log.of([topic]).values():
            for record in records:
                event = opened(record, _EVERYTHING)
                if event:
                    seen.setdefault((event.source, event.id), event)
        return list(seen.values())

    def _check_log(self) -> None:
        decided = [
            event for topic in (JOBS.name, MODELS.name) for event in self._events(topic) if event.sequence is not None
        ]
        numbers: dict[tuple[str, str], list[int]] = {}
        for event in decided:
            numbers.setdefault((event.source, event.subject), []).append(event.sequence or 0)
        for scope, found in numbers.items():
            if found != list(range(1, len(found) + 1)):
                raise Unsound(f"numbers of {scope} on the log are {found}")
        endings = Counter(event.data.job_id for event in decided if isinstance(event.data, TERMINAL))
        asked = {event.data.job_id for event in self._events(REQUESTS.name) if isinstance(event.data, JobRequested)}
        if wrong := {job: endings[job] for job in asked if endings[job] != 1}:
            raise Unsound(f"jobs do not have one ending each: {wrong}")
        made = [event.data for event in decided if isinstance(event.data, ModelRegistered)]
        if len({(one.model, one.version) for one in made}) != len(made):
            raise Unsound("a version was registered twice")
        if len({(one.lineage.job_id, one.lineage.step) for one in made}) != len(made):
            raise Unsound("a job registered two versions")
        completed = {event.data.job_id for event in decided if isinstance(event.data, JobCompleted)}
        if missing := completed - {one.lineage.job_id for one in made}:
            raise Unsound(f"jobs are completed without a version: {missing}")

    def verdict(self) -> Verdict:
        """The history of what outsiders sent, by the checker that judges the real servers."""
        facts = list(self.facts)
        sent = {fact.id: fact for fact in facts if fact.kind == "sent"}
        applied = {name for source, name in self.services[0].database.inbox if source == "relaycore"}
        for name in sorted(applied):
            fact = sent[name]
            facts += [Fact("applied", name, fact.key, fact.number), Fact("effect", name, fact.key, fact.number)]
        return check(sorted(facts, key=lambda fact: fact.number))


_EVERYTHING = frozenset(EVENT_TYPES)


def _ref(key: str) -> Ref:
    job, step, attempt = key.rsplit("/", 2)
    return attempt_ref(job, step, int(attempt))
