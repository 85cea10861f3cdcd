"""Traces how a model was made, as one chain from JobRequested to ModelRegistered, and reports links that are missing.

Pure: it turns the records of one job into a trace. The orchestrator's own fold gives what happened. What must exist follows
from the plan in JobAccepted, from the events' sequence numbers, and from digests: a step's input must be a step's output.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from pydantic import Field

from schemas.artifacts import ArtifactRef
from schemas.base import Frozen
from schemas.envelope import Event, wire_data
from schemas.jobs import (
    FeedbackRecorded,
    JobAccepted,
    JobCancelled,
    JobCompleted,
    JobControlled,
    JobControlRefused,
    JobFailed,
    JobRejected,
    StepCompleted,
    StepEventData,
    StepFault,
    StepRequested,
    StepStarted,
)
from schemas.models import AliasMoved, Lineage, ModelRegistered
from schemas.requests import JobCancelRequested, JobControlRequested, JobRequested
from schemas.results import ADAPTER
from schemas.steps import PlannedStep
from schemas.topics import DATASETS, MODELS, TOPIC_OF
from services.chassis.kernel.records import Logged, RecordId, named
from services.orchestrator.domain.evolve import evolve
from services.orchestrator.domain.graph import ancestors
from services.orchestrator.domain.state import JobState, Status
from services.orchestrator.rendering import step_status
from services.orchestrator.views import StepStatus

_REGISTER = "register"
_NAMED_HOLES = 10
_MILESTONES = frozenset(
    data.type_name()
    for data in (
        JobRequested,
        JobCancelRequested,
        JobControlRequested,
        JobAccepted,
        JobRejected,
        JobControlled,
        JobControlRefused,
        JobCompleted,
        JobFailed,
        JobCancelled,
    )
)


@dataclass(frozen=True, slots=True)
class Located:
    """An event and its position in the log."""

    event: Event
    record_id: RecordId
    at: datetime
    """Time in the log."""


class Hop(Frozen):
    """One event of a chain."""

    type: str
    id: str
    place: str = Field(description="topic:partition:offset.")
    at: datetime = Field(description="When the broker appended it.")
    source: str
    step: str | None = Field(default=None, description="The step that the event is about.")


class LabelBatch(Frozen):
    """One batch of AI feedback."""

    hop: Hop
    counted: bool = Field(description="Whether it belongs to the attempt whose result was used.")
    recorded: FeedbackRecorded


class TracedStep(Frozen):
    """One step of the plan as it was executed."""

    name: str
    kind: str
    status: StepStatus
    attempts: int = Field(description="Number of requested attempts.")
    worker: str | None = Field(default=None, description="Worker of the attempt whose result was used, or of the last one.")
    settings: dict[str, Any] = Field(description="The complete configuration, including seeds.")
    inputs: dict[str, str] = Field(default_factory=dict, description="SHA-256 of its inputs, by name.")
    outputs: dict[str, ArtifactRef] = Field(default_factory=dict, description="Its artifacts, by output name.")
    metrics: dict[str, float | None] = Field(default_factory=dict)
    facts: dict[str, str] = Field(default_factory=dict, description="Digests and versions that it recorded.")
    batches: tuple[LabelBatch, ...] = Field(default=(), description="AI feedback of label steps, of all attempts.")


class TracedVersion(Frozen):
    """One version that the job made."""

    model: str
    version: str
    artifact: ArtifactRef
    lineage: Lineage
    metrics: dict[str, float | None]
    registered: Hop
    aliases: tuple[str, ...] = Field(default=(), description="Aliases that were moved to it, in this order.")
    chain: tuple[Hop, ...] = Field(
        description="Events from the first cause to ModelRegistered; each is the cause of the next."
    )


class Trace(Frozen):
    """How a job made its models."""

    job_id: str
    status: Status | None = Field(description="Null if nobody requested the job.")
    requester: str | None
    request: dict[str, Any] | None = Field(
        description="The request with its defaults, or as sent if the job was not accepted."
    )
    policy: dict[str, Any] | None = Field(description="Retries and time-outs of the job.")
    milestones: tuple[Hop, ...] = Field(
        description="JobRequested, JobAccepted or JobRejected, and the event that ended the job."
    )
    fault: StepFault | None = Field(default=None, description="Why a failed job failed.")
    steps: tuple[TracedStep, ...]
    versions: tuple[TracedVersion, ...]
    events: int = Field(description="Number of events about the job in the log.")
    complete: bool = Field(description="Whether every event from JobRequested to the end of the chain is in the log.")
    missing: tuple[str, ...] = Field(description="The missing events, in words.")


def trace(job_id: str, records: Sequence[Located], version: str | None = None) -> Trace:
    """Make the trace of `records`, all events about the job in the order of the log per partition.

    With `version` (`model@1.0.0`) only the chain of that version must be complete.
    """
    unique = _once(records)
    state = JobState()
    for item in unique:
        if TOPIC_OF[item.event.type] not in (MODELS, DATASETS):
            state = evolve(state, item.event, Logged(item.at, *item.record_id))
    plan = state.accepted.plan if state.accepted else ()
    versions = tuple(made for made in _versions(unique) if version is None or version == f"{made.model}@{made.version}")
    asked = {
        (item.event.data.step, item.event.data.attempt): item.event.data
        for item in unique
        if isinstance(item.event.data, StepRequested)
    }
    missing = tuple(dict.fromkeys(_missing(state, plan, unique, versions, asked)))
    sent = state.wish.request if state.wish else None
    return Trace(
        job_id=job_id,
        status=state.status,
        requester=str(sent.get("requester")) if sent and sent.get("requester") else None,
        request=state.accepted.request.model_dump(mode="json") if state.accepted else sent,
        policy=state.accepted.policy.model_dump(mode="json") if state.accepted else None,
        milestones=tuple(_hop(item) for item in sorted(unique, key=lambda each: each.at) if item.event.type in _MILESTONES),
        fault=state.ending.fault if state.ending else None,
        steps=tuple(_step(state, step, unique, asked) for step in plan),
        versions=versions,
        events=len(unique),
        complete=not missing,
        missing=missing,
    )


def _once(records: Iterable[Located]) -> list[Located]:
    """Remove duplicates that a producer wrote."""
    known: set[tuple[str, str, str, str]] = set()
    result = []
    for item in records:
        name = (item.event.source, item.event.id, item.event.type, wire_data(item.event.data))  # an id may be reused
        if name not in known:
            known.add(name)
            result.append(item)
    return result


def _hop(item: Located) -> Hop:
    event = item.event
    step = event.data.step if isinstance(event.data, StepEventData) else None
    return Hop(type=event.type, id=event.id, place=named(item.record_id), at=item.at, source=event.source, step=step)


def _versions(records: Sequence[Located]) -> Iterator[TracedVersion]:
    by_id = {item.event.id: item for item in records}
    for item in records:
        made = item.event.data
        if isinstance(made, ModelRegistered):
            moves = (other.event.data for other in records if isinstance(other.event.data, AliasMoved))
            yield TracedVersion(
                model=made.model,
                version=made.version,
                artifact=made.artifact,
                lineage=made.lineage,
                metrics=made.metrics,
                registered=_hop(item),
                aliases=tuple(move.alias for move in moves if (move.model, move.version) == (made.model, made.version)),
                chain=tuple(_chain(item, by_id)),
            )


def _chain(end: Located, by_id: Mapping[str, Located]) -> list[Hop]:
    """Return the chain from the first cause that the log has; it stops where a cycle closes."""
    hops = [_hop(end)]
    at, passed = end, {end.event.id}
    while (cause := by_id.get(at.event.causation_id or "")) and cause.event.id not in passed:
        at = cause
        passed.add(at.event.id)
        hops.append(_hop(at))
    return hops[::-1]


def _step(
    state: JobState, step: PlannedStep, records: Sequence[Located], asked: Mapping[tuple[str, int], StepRequested]
) -> TracedStep:
    attempt = counted_attempt(state, step.name) or state.latest(step.name)
    known = state.attempts.get(step.name, {}).get(attempt)
    request = asked.get((step.name, attempt))
    result = state.result(step.name)
    return TracedStep(
        name=step.name,
        kind=step.kind,
        status=step_status(state, step.name),
        attempts=sum(1 for name, _ in asked if name == step.name),
        worker=known.started.worker if known and known.started else None,
        settings=(request or step).settings.model_dump(mode="json", exclude={"kind"}),
        inputs={name: ref.sha256 for name, ref in request.inputs.items()} if request else {},
        outputs=result.outputs if result else {},
        metrics=result.metrics if result else {},
        facts=result.facts if result else {},
        batches=tuple(
            LabelBatch(hop=_hop(item), counted=item.event.data.attempt == attempt, recorded=item.event.data)
            for item in records
            if isinstance(item.event.data, FeedbackRecorded) and item.event.data.step == step.name
        ),
    )


def counted_attempt(state: JobState, step: str) -> int | None:
    """Return the attempt whose result the job used."""
    return next((n for n, known in sorted(state.attempts.get(step, {}).items()) if known.result is not None), None)


def _missing(
    state: JobState,
    plan: tuple[PlannedStep, ...],
    records: Sequence[Located],
    versions: Sequence[TracedVersion],
    asked: Mapping[tuple[str, int], StepRequested],
) -> Iterator[str]:
    if state.wish is None:
        yield "JobRequested"
    if state.rejected:
        yield f"{JobAccepted.type_name()}: the job was rejected: {'; '.join(map(str, state.rejected.reasons))}"
        return
    if state.accepted is None:
        yield JobAccepted.type_name()
    yield from _gaps(records)
    yield from _missing_of_steps(state, plan, records, versions, asked)
    yield from _missing_of_versions(plan, records, versions, asked)


def _gaps(records: Sequence[Located]) -> Iterator[str]:
    """Find gaps in the sequence numbers that a service gives its events about a job or attempt: there an event is
    missing."""
    numbers: dict[tuple[str, str], set[int]] = {}
    for item in records:
        event = item.event
        if event.sequence is not None and TOPIC_OF[event.type] not in (MODELS, DATASETS):
            numbers.setdefault((event.source, event.subject), set()).add(event.sequence)
    for (source, subject), found in sorted(numbers.items()):
        holes = list(islice(_holes(found), _NAMED_HOLES + 1))
        if holes:
            shown = ", ".join(map(str, holes[:_NAMED_HOLES])) + (", …" if len(holes) > _NAMED_HOLES else "")
            yield f"the event of {source} about {subject} with number {shown}"


def _holes(found: Iterable[int]) -> Iterator[int]:
    """Yield the numbers from 1 up to the highest that are not there; a record may claim any number."""
    expected = 1
    for number in sorted(found):
        yield from range(expected, number)
        expected = number + 1


def _missing_of_steps(
    state: JobState,
    plan: tuple[PlannedStep, ...],
    records: Sequence[Located],
    versions: Sequence[TracedVersion],
    asked: Mapping[tuple[str, int], StepRequested],
) -> Iterator[str]:
    """Yield what is missing of the steps that lead to the versions, or of all steps if there is no version."""
    ends = {made.lineage.step for made in versions} or {step.name for step in plan}
    wanted = {name for end in ends for name in (end, *ancestors(plan, end))}
    made_here = {
        ref.sha256
        for item in records
        if isinstance(item.event.data, StepCompleted)
        for ref in item.event.data.result.outputs.values()
    }
    recorded = {
        (type(item.event.data), item.event.data.step, item.event.data.attempt)
        for item in records
        if isinstance(item.event.data, StepEventData)
    }
    for step in plan:
        if step.name not in wanted:
            continue
        attempt = counted_attempt(state, step.name)
        if attempt is None:
            why = f" (the step is {step_status(state, step.name)}, the job {state.status})"
            yield f"StepCompleted of {step.name}{why}"
            continue
        for kind in (StepRequested, StepStarted):
            if (kind, step.name, attempt) not in recorded:
                yield f"{kind.type_name()} of {step.name}, attempt {attempt}"
        if step.kind == "label" and (FeedbackRecorded, step.name, attempt) not in recorded:
            yield f"FeedbackRecorded of {step.name}, attempt {attempt}"
        request, result = asked.get((step.name, attempt)), state.result(step.name)
        for name, ref in (request.inputs if request else {}).items():
            if ref.sha256 not in made_here:
                yield f"the step that made {ref.sha256}, which {step.name} read as {name}"
            read = result.inputs.get(name, ref.sha256) if result else ref.sha256
            if read != ref.sha256:
                yield f"why {step.name} reports that it read {read} as {name} although its input is {ref.sha256}"


def _missing_of_versions(
    plan: tuple[PlannedStep, ...],
    records: Sequence[Located],
    versions: Sequence[TracedVersion],
    asked: Mapping[tuple[str, int], StepRequested],
) -> Iterator[str]:
    registered = {made.lineage.step for made in versions}
    if not registered:
        yield from (f"ModelRegistered of {step.name}" for step in plan if step.kind == _REGISTER)
    requested = {item.event.id for item in records if isinstance(item.event.data, JobRequested)}
    for made in versions:
        name = f"{made.model}@{made.version}"
        if made.chain[0].id not in requested:
            yield f"the cause of {made.chain[0].type} {made.chain[0].id}, in the chain from JobRequested to {name}"
        given = {
            request.inputs[ADAPTER].sha256
            for (step, _), request in asked.items()
            if step == made.lineage.step and ADAPTER in request.inputs
        }
        if given and made.artifact.sha256 not in given:
            yield f"the request that gave {made.artifact.sha256}, the artifact of {name}, to {made.lineage.step}"
        if made.lineage.base_model_sha256 is None:
            yield f"the digest of the base model of {name}"
        if made.lineage.imported is not None:
            continue  # the data and the recipe of what was made elsewhere are not known, which its lineage says
        if made.lineage.dataset_sha256 is None:
            yield f"the digest of the data set of {name}"
        if not made.lineage.configuration:
            yield f"the recipe of {name}"
