"""Connects the orchestrator's domain to the chassis: it has one aggregate, the job, and makes all decisions about it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from schemas.attributes import ATTRIBUTE_LIMIT
from schemas.envelope import Event
from schemas.jobs import (
    JobAccepted,
    JobCancelled,
    JobCompleted,
    JobControlled,
    JobControlRefused,
    JobFailed,
    JobRejected,
    StepCancelRequested,
    StepCheckpointRequested,
    StepEventData,
    StepPriorityChanged,
    StepRequested,
)
from schemas.progress import StepProgressed
from schemas.requests import JobCancelRequested, JobControlRequested, JobRequest, JobRequested
from schemas.steps import Policy
from schemas.topics import JOBS, PROGRESS, REQUESTS
from services.chassis.kernel.aggregate import AggregateType, Decision, Ref, State, States
from services.chassis.kernel.records import Logged
from services.orchestrator.domain import decide as deciding
from services.orchestrator.domain.evolve import evolve
from services.orchestrator.domain.state import JobState

SOURCE = "neuroweaver/orchestrator"
JOB = "job"
_TEXT_LIMIT = 256
EXPLICIT = "explicit"
DEFAULT_PIPELINE = str(JobRequest.model_fields["pipeline"].default)

_JobDecision = JobAccepted | JobRejected | JobCompleted | JobFailed | JobCancelled | JobControlled | JobControlRefused
JobEvent = JobRequested | JobCancelRequested | JobControlRequested | _JobDecision | StepEventData
OwnEvent = _JobDecision | StepRequested | StepCancelRequested | StepPriorityChanged | StepCheckpointRequested


class Jobs(AggregateType):
    """How jobs are stored: in the table of `tables.py`."""

    def __init__(self) -> None:
        columns = {
            "status": "text", "requester": "text", "pipeline": "text", "model": "text", "version": "text", "steps": "int",
            "steps_done": "int", "requested_at": "timestamptz", "ended_at": "timestamptz",
        }  # fmt: skip
        super().__init__(JOB, JobState, columns)

    def due(self, state: JobState) -> datetime | None:
        """The earliest of retry, deadline and end of the grace period."""
        return deciding.due(state)

    def values(self, state: JobState) -> Mapping[str, Any]:
        """Values of the query columns; for an invalid request, whatever can be read of it."""
        sent = state.sent
        plan, results = state.accepted.plan if state.accepted else (), state.results
        return {
            "status": state.status,
            "requester": _text(sent.get("requester")),
            "pipeline": pipeline_name(state),
            "model": _text(sent.get("register_as")),
            "version": state.ending.version if state.ending else None,
            "steps": len(plan) if plan else None,
            "steps_done": sum(step.name in results for step in plan) if plan else None,
            "requested_at": state.requested_at,
            "ended_at": state.ended_at,
        }


class JobDomain:
    """Makes all decisions about jobs; `policy` applies to jobs accepted from now on and is recorded in each."""

    source = SOURCE
    handles = frozenset(event.type_name() for topic in (REQUESTS, JOBS, PROGRESS) for event in topic.events)

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.aggregates: Mapping[str, AggregateType] = {JOB: Jobs()}

    def touches(self, event: Event) -> tuple[Ref, ...]:
        """The event's job. Progress is stored beside the job, and an invalid job id belongs to no job.

        An event that only the orchestrator may send counts if it has the orchestrator's number; from another sender it is
        ignored.
        """
        data = event.data
        if not isinstance(data, JobEvent) or isinstance(data, StepProgressed) or len(data.job_id) > ATTRIBUTE_LIMIT:
            return ()
        if isinstance(data, OwnEvent) and (event.source != self.source or event.sequence is None):
            return ()
        return (job_ref(data.job_id),)

    def owner(self, event: Event) -> Ref:
        """The job, which numbers every own event."""
        return self.touches(event)[0]

    def evolve(self, ref: Ref, state: Any, event: Event, logged: Logged | None) -> State:
        """The job after `event`."""
        return evolve(state, event, logged)

    def decide(self, ref: Ref, states: States, now: datetime) -> Decision | None:
        """The next decision about the job."""
        state = states[ref]
        if not isinstance(state, JobState):
            raise TypeError(f"{ref.aggregate} {ref.key} is not a job")
        data = deciding.decide(state, self.policy, now)
        return None if data is None else Decision(ref, ref.key, data)


def job_ref(job_id: str) -> Ref:
    """The reference to a job; its id is also the subject of the orchestrator's events."""
    return Ref(JOB, job_id)


def pipeline_name(state: JobState) -> str | None:
    """Name of the preset, or `explicit` for a list of steps; None for a request that names neither."""
    pipeline = state.sent.get("pipeline", DEFAULT_PIPELINE) if state.wish or state.accepted else None
    return EXPLICIT if isinstance(pipeline, list) else _text(pipeline)


def _text(value: object) -> str | None:
    return value[:_TEXT_LIMIT] if isinstance(value, str) else None
