"""An orchestrator on real servers with executors that do what a test says; it minds only jobs of its own prefix."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import uvicorn
from aiokafka import AIOKafkaProducer
from sqlalchemy.engine import make_url

from schemas.artifacts import ArtifactRef
from schemas.base import EventData
from schemas.envelope import Event, encode
from schemas.jobs import StepCancelled, StepCompleted, StepFailed, StepFault, StepResult, StepStarted
from schemas.progress import StepProgressed
from schemas.requests import JobRequested
from schemas.steps import EXECUTOR_OF, OUTPUTS_OF
from schemas.topics import JOBS, PROGRESS, REQUESTS, TOPIC_OF
from services.chassis.kafka.publisher import make_producer, outside_event
from services.chassis.kernel.aggregate import Ref, State
from services.chassis.kernel.records import Logged
from services.chassis.serving.http import application
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.service import Service, assemble
from services.chassis.serving.web.server import server_config
from services.chassis.serving.web.settings import HttpSettings
from services.orchestrator.api import router
from services.orchestrator.domain.job import JobDomain
from services.orchestrator.effects import JobEffects
from services.orchestrator.settings import OrchestratorSettings
from tests.databases import provide
from tests.log import read_events
from tests.toy import until

ARTIFACT = ArtifactRef(uri="/artifacts/x", sha256="0" * 64, size=1)
SHORT = [
    {"name": "prepare", "kind": "prepare"},
    {"name": "train", "kind": "train", "method": "sft", "inputs": {"dataset": "prepare.dataset"}},
    {"name": "register", "kind": "register", "inputs": {"adapter": "train.adapter"}},
]


class OwnJobs(JobDomain):
    """A domain that ignores the jobs of other tests on the shared broker, and has its own source."""

    def __init__(self, settings: OrchestratorSettings, prefix: str, source: str) -> None:
        super().__init__(settings.policy)
        self.prefix, self.source = prefix, source
        self.poison: frozenset[str] = frozenset()
        """The ids of jobs whose handling fails."""

    def evolve(self, ref: Ref, state: Any, event: Event, logged: Logged | None) -> State:
        if ref.key in self.poison:
            raise ValueError("this job is poison")
        return super().evolve(ref, state, event, logged)

    def touches(self, event: Event) -> tuple[Ref, ...]:
        return tuple(ref for ref in super().touches(event) if ref.key.startswith(self.prefix))


class Orchestrator:
    """One orchestrator with its own database, and the outsiders that use it."""

    def __init__(self, kafka: str, database_url: str, home: Path, **more: Any) -> None:
        name = f"orchestrator_{uuid4().hex[:8]}"
        self.prefix, self.source = f"{name}-", f"neuroweaver/{name}"
        own = make_url(database_url).set(database=name).render_as_string(hide_password=False)
        self.settings = OrchestratorSettings(
            kafka_bootstrap=kafka, orchestrator_database_url=own, home=home, session_timeout_ms=6000, drain_seconds=5,
            policy_backoff_seconds=0.2, policy_cancel_grace_seconds=5, **more,
        )  # fmt: skip
        self.poison: tuple[str, ...] = ()
        """The names of jobs whose handling fails."""
        self.http = httpx2.AsyncClient()
        self.runtime: Runtime | None = None
        self._producer: AIOKafkaProducer | None = None
        self._numbers: dict[str, int] = {}

    def service(self) -> Service:
        """Build the service like `app.build`, with another domain."""
        domain = OwnJobs(self.settings, self.prefix, self.source)
        domain.poison = frozenset(self.prefix + name for name in self.poison)
        self.runtime = Runtime(
            self.settings, "orchestrator", domain, topics=(REQUESTS, JOBS, PROGRESS), effects=JobEffects()
        )
        return assemble(self.runtime, router=router(self.runtime, self.settings))

    @asynccontextmanager
    async def running(self, *, ready: bool = True) -> AsyncIterator["Orchestrator"]:
        """Run the service with HTTP until it is ready, unless the arguments say otherwise."""
        if ready:
            await provide(self.settings, "orchestrator")
        service = self.service()
        config = server_config(application([service]), HttpSettings(), graceful_seconds=2)
        config.port = 0
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        try:
            await until(lambda: server.started)
            port = server.servers[0].sockets[0].getsockname()[1]
            base = f"http://127.0.0.1:{port}/api/v1"
            async with httpx2.AsyncClient(base_url=base, timeout=60) as self.http:
                if ready:
                    await until(lambda: service.health.ready, what=lambda: service.health.missing)
                yield self
        finally:
            server.should_exit = True
            await serving
            await self.disconnect()

    def request(self, name: str, **fields: Any) -> dict[str, Any]:
        """Return a small valid request."""
        return {
            "job_id": self.prefix + name, "requester": "relaycore", "pipeline": SHORT, "base_model": "/models/base",
            "dataset": {"reference": "/data"}, "register_as": "router", **fields,
        }  # fmt: skip

    # outsiders

    async def publish(self, *events: Event, partition: int | None = None) -> None:
        """Append events to their topics, in order, to the partition of their key or of another client's partitioner."""
        if self._producer is None:
            self._producer = make_producer(self.settings.cluster, "outside")
            await self._producer.start()
        for event in events:
            value, headers = encode(event)
            key = event.data.job_id.encode()  # type: ignore[attr-defined]
            await self._producer.send(TOPIC_OF[event.type].name, value, key, partition, headers=headers)
        await self._producer.flush()

    async def disconnect(self) -> None:
        """Send the next event over a new connection, which knows all partitions."""
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None

    async def ask(self, request: dict[str, Any]) -> Event:
        """Publish a JobRequested as RelayCore does."""
        job_id = request["job_id"]
        event = outside_event("relaycore", JobRequested(job_id=job_id, request=request), correlation_id=job_id)
        await self.publish(event)
        return event

    async def say(self, event: type[Any], job_id: str, step: str, attempt: int = 1, **fields: Any) -> None:
        """Publish an event of the step's executor."""
        kind = step if step in EXECUTOR_OF else "train"
        data: EventData = event(job_id=job_id, step=step, attempt=attempt, kind=kind, **fields)
        subject = f"{job_id}/{step}/{attempt}"
        number = None
        if event is not StepProgressed:
            number = self._numbers[subject] = self._numbers.get(subject, 0) + 1
        fact = outside_event(f"neuroweaver/{EXECUTOR_OF[kind]}", data, correlation_id=job_id, subject=subject)
        await self.publish(fact._replace(sequence=number))

    async def start(self, job_id: str, step: str, attempt: int = 1) -> None:
        await self.say(StepStarted, job_id, step, attempt, worker="host:1")

    async def complete(self, job_id: str, *steps: str) -> None:
        """Complete steps one after the other, each as soon as it is requested."""
        for step in steps:
            await until(lambda step=step: self.asked(job_id, step))
            facts = {"model": "router", "version": "1.0.0"} if step == "register" else {}
            outputs = dict.fromkeys(OUTPUTS_OF[step], ARTIFACT)
            await self.say(StepCompleted, job_id, step, result=StepResult(outputs=outputs, facts=facts))

    async def fail(self, job_id: str, step: str, attempt: int = 1, cause: str = "user") -> None:
        fault = StepFault(cause=cause, message="it broke", log_tail=("first line", "last line"))
        await self.say(StepFailed, job_id, step, attempt, fault=fault)

    async def stop(self, job_id: str, step: str, attempt: int = 1) -> None:
        await self.say(StepCancelled, job_id, step, attempt)

    # observations

    async def job(self, name_or_id: str) -> dict[str, Any]:
        """Return the job over HTTP."""
        job_id = name_or_id if name_or_id.startswith(self.prefix) else self.prefix + name_or_id
        answer = await self.http.get(f"/training/{job_id}")
        return answer.json() if answer.status_code == 200 else {"status": None, "steps": []}

    async def status(self, name: str, *wanted: str) -> dict[str, Any]:
        """Return the job as soon as it has one of these statuses."""

        async def found() -> bool:
            return (await self.job(name))["status"] in wanted

        await until(found, what=lambda: (name, wanted))
        return await self.job(name)

    async def asked(self, job_id: str, step: str, attempt: int = 1) -> bool:
        """Wait until an attempt was requested."""
        steps = {found["name"]: found for found in (await self.job(job_id))["steps"]}
        return step in steps and len(steps[step]["attempts"]) >= attempt

    async def log(self, topic: str = JOBS.name) -> list[Event]:
        """Return the events about its jobs, in order per partition."""
        events = await read_events(self.settings.kafka_bootstrap, topic)
        return [event for event in events if event.data.job_id.startswith(self.prefix)]  # type: ignore[attr-defined]


def sse(lines: Iterable[str]) -> dict[str, Any]:
    """Parse one server-sent event: fields by name, data as JSON."""
    fields: dict[str, Any] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name:
            fields[name] = json.loads(value) if name == "data" else value
    return fields
