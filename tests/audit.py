"""A whole job as the services put it on the log, from JobRequested to JobCompleted: for the tests of the audit commands."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from aiokafka import ConsumerRecord

from schemas.artifacts import ArtifactRef
from schemas.base import EventData
from schemas.envelope import Event, encode
from schemas.ids import new_id, root_traceparent
from schemas.jobs import (
    FeedbackRecorded,
    JobAccepted,
    JobCompleted,
    StepCompleted,
    StepRequested,
    StepResult,
    StepStarted,
)
from schemas.models import Lineage, ModelPromoted, ModelRegistered
from schemas.requests import JobRequest, JobRequested
from schemas.steps import EXECUTOR_OF, OUTPUTS_OF, PlannedStep, Policy
from schemas.topics import TOPIC_OF, aggregate_key
from services.audit.tracing import Located
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.publisher import make_producer
from services.orchestrator.domain.graph import producer_of
from services.orchestrator.domain.planning import plan

START = datetime(2030, 1, 1, tzinfo=UTC)


def artifact(*path: str) -> ArtifactRef:
    """Return the artifact of an output."""
    name = "/".join(path)
    return ArtifactRef(uri=f"/artifacts/{name}", sha256=hashlib.sha256(name.encode()).hexdigest(), size=1)


class MadeJob:
    """The events of one job that made `model@version`, in a possible order of the log."""

    def __init__(self, job_id: str, model: str, *, pipeline: str = "rlaif", version: str = "1.0.0") -> None:
        self.job_id, self.model, self.version = job_id, model, version
        self.events: list[Event] = []
        self._numbers: dict[tuple[str, str], int] = {}
        request: dict[str, Any] = {
            "job_id": job_id, "requester": "relaycore", "pipeline": pipeline, "base_model": "/models/base",
            "dataset": {"reference": "/data"}, "register_as": model,
        }  # fmt: skip
        wanted = JobRequest.model_validate(request)
        asked = self._say("relaycore", "", JobRequested(job_id=job_id, request=request), None, numbered=False)
        steps = plan(wanted)
        self._own(JobAccepted(job_id=job_id, request=wanted, plan=steps, policy=Policy()), asked)
        results: dict[str, StepResult] = {}
        last: dict[str, Event] = {}
        for step in steps:
            cause = last[step.needs[-1]] if step.needs else asked
            last[step.name] = self._step(step, cause, results)
        self._own(JobCompleted(job_id=job_id, model=model, version=version), last[steps[-1].name])

    def _step(self, step: PlannedStep, cause: Event, results: dict[str, StepResult]) -> Event:
        about: dict[str, Any] = {"job_id": self.job_id, "step": step.name, "attempt": 1, "kind": step.kind}
        inputs = {name: artifact(self.job_id, *producer_of(binding)) for name, binding in step.inputs.items()}
        request = StepRequested(**about, settings=step.settings, inputs=inputs, results=dict(results), deadline=START)
        asked = self._own(request, cause)
        service, subject = f"neuroweaver/{EXECUTOR_OF[step.kind]}", f"{self.job_id}/{step.name}/1"
        started = self._say(service, subject, StepStarted(**about, worker="host:1"), asked)
        if step.kind == "label":
            batch = FeedbackRecorded(
                **about, judge="rules", candidates=8, comparisons=6, pairs=4, ties=1, invalid=1, agreement=0.75,
                position_consistency=None, longer_preferred=0.5,
            )  # fmt: skip
            self._say(service, subject, batch, started)
        if step.kind == "register":
            self._register(step, inputs["adapter"], results, started)
        facts = {"base_model_sha256": "b" * 64, "dataset_sha256": "d" * 64} if step.kind == "prepare" else {}
        results[step.name] = StepResult(
            inputs={name: ref.sha256 for name, ref in inputs.items()},
            outputs={name: artifact(self.job_id, step.name, name) for name in OUTPUTS_OF[step.kind]},
            metrics={"loss": 0.5},
            facts=facts,
        )
        return self._say(service, subject, StepCompleted(**about, result=results[step.name]), started)

    def _register(self, step: PlannedStep, adapter: ArtifactRef, results: dict[str, StepResult], started: Event) -> None:
        lineage = Lineage(
            job_id=self.job_id, step=step.name, requester="relaycore", base_model="/models/base", base_model_sha256="b" * 64,
            dataset_sha256="d" * 64, configuration={"method": "dpo", "seed": 0}, results=dict(results),
        )  # fmt: skip
        made = ModelRegistered(
            model=self.model, version=self.version, artifact=adapter, lineage=lineage, metrics={"loss": 0.5}
        )
        moved = ModelPromoted(model=self.model, alias="candidate", version=self.version, previous=None)
        for data in (made, moved):
            self._say("neuroweaver/registry", self.model, data, started)

    def _own(self, data: EventData, cause: Event) -> Event:
        return self._say("neuroweaver/orchestrator", self.job_id, data, cause)

    def _say(self, source: str, subject: str, data: EventData, cause: Event | None, *, numbered: bool = True) -> Event:
        number = self._numbers[source, subject] = self._numbers.get((source, subject), 0) + 1
        event_id = new_id()
        event = Event(
            id=event_id, source=source, subject=subject, time=START + timedelta(seconds=len(self.events)), data=data,
            sequence=number if numbered else None, correlation_id=self.job_id, causation_id=cause.id if cause else None,
            traceparent=root_traceparent(source, event_id),
        )  # fmt: skip
        self.events.append(event)
        return event

    def without(self, kind: type[EventData], step: str | None = None) -> list[Event]:
        """Return all events except those of a type, or of a type and a step."""
        return [
            event
            for event in self.events
            if not (isinstance(event.data, kind) and (step is None or getattr(event.data, "step", None) == step))
        ]


def located(events: list[Event]) -> list[Located]:
    """Return events with positions, as if each topic had one partition."""
    return [
        Located(event, (TOPIC_OF[event.type].name, 0, offset), START + timedelta(milliseconds=offset))
        for offset, event in enumerate(events)
    ]


def changed(event: Event, data: EventData) -> Event:
    """Return the same event with other data."""
    return event._replace(data=data)


async def publish(kafka: str, events: list[Event]) -> None:
    """Append events to their topics, in order per key."""
    producer = make_producer(Cluster(kafka), "audit-tests")
    await producer.start()
    for event in events:
        value, headers = encode(event)
        await producer.send(TOPIC_OF[event.type].name, value, aggregate_key(event.data).encode(), headers=headers)
    await producer.flush()
    await producer.stop()


def record(
    value: bytes | None = b"{}", *headers: tuple[str, bytes | None], key: bytes | None = None, topic: str = "t",
    partition: int = 0, offset: int = 0, timestamp: int = 0,
) -> Any:  # fmt: skip
    """Return a record as a consumer delivers it."""
    return ConsumerRecord(topic, partition, offset, timestamp, 1, key, value, None, 0, 0, headers)
