"""Models an attempt at a step as its executor's aggregate: the request, whether it was cancelled, and the outcome.

The executor decides the outcome (rule 1), so this aggregate numbers its own events about the attempt. Fields commute
(rule 2): `evolve` sets some from the orchestrator's events and others from own events, and neither depends on the other.
There is no other projection of attempts: `evolve` is the projection.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, Field

from schemas.base import Frozen
from schemas.envelope import Event
from schemas.jobs import (
    StepCancelled,
    StepCancelRequested,
    StepCheckpointRequested,
    StepCompleted,
    StepEventData,
    StepFailed,
    StepFault,
    StepPriorityChanged,
    StepRequested,
    StepResult,
    StepStarted,
)
from schemas.steps import EXECUTOR_OF
from schemas.topics import JOBS
from services.chassis.kernel.aggregate import AggregateType, Decision, Ref, State, States, opening
from services.chassis.kernel.records import Logged

ATTEMPT = "attempt"
OPEN = ("queued", "running", "cancelling")
"""Statuses of attempts that still need a worker."""


class Reprioritised(Frozen):
    """The orchestrator's StepPriorityChanged; the latest counts."""

    at: AwareDatetime
    event_id: str
    priority: int


class CheckpointWanted(Frozen):
    """The orchestrator's StepCheckpointRequested; the latest counts."""

    at: AwareDatetime
    event_id: str


class AttemptState(State):
    """The state of an attempt; it has the whole request, so that after a lost database the work is queued again from here."""

    requested: StepRequested | None = Field(default=None, description="The orchestrator's request.")
    requested_at: datetime | None = Field(default=None, description="Time of the request.")
    reprioritised: Reprioritised | None = Field(default=None, description="The latest change of its priority.")
    checkpoint_wanted: CheckpointWanted | None = Field(default=None, description="The latest request for a checkpoint.")
    cancel_requested: bool = Field(default=False, description="The orchestrator closed the attempt.")
    started_at: datetime | None = Field(default=None, description="Time of the first start.")
    starts: int = Field(default=0, description="How often a worker started it or took it over.")
    worker: str | None = Field(default=None, description="The worker that started it last.")
    outcome: str | None = Field(default=None, description="completed, failed or cancelled; null while open.")
    result: StepResult | None = Field(default=None, description="Of a completed attempt.")
    fault: StepFault | None = Field(default=None, description="Of a failed attempt.")
    ended_at: datetime | None = Field(default=None, description="Time of the outcome.")

    @property
    def priority(self) -> int:
        """The latest priority."""
        if self.reprioritised:
            return self.reprioritised.priority
        return self.requested.priority if self.requested else 0

    @property
    def status(self) -> str | None:
        """The status for queries; None for an attempt that was never requested here."""
        if self.outcome or self.requested is None:
            return self.outcome
        if self.cancel_requested:
            return "cancelling"
        return "running" if self.starts else "queued"


class Attempts(AggregateType):
    """The aggregate type of attempts, stored in the table that `schema.create_executor_tables` creates."""

    def __init__(self) -> None:
        columns = {
            "job_id": "text", "step": "text", "attempt": "int", "kind": "text", "status": "text", "priority": "int",
            "requested_at": "timestamptz", "not_before": "timestamptz",
        }  # fmt: skip
        super().__init__(ATTEMPT, AttemptState, columns)

    def values(self, state: AttemptState) -> Mapping[str, Any]:
        """Return the values of the query columns: a pure function of the state."""
        asked = state.requested
        return {
            "job_id": asked and asked.job_id,
            "step": asked and asked.step,
            "attempt": asked and asked.attempt,
            "kind": asked and asked.kind,
            "status": state.status,
            "priority": state.priority if asked else None,
            "requested_at": state.requested_at,
            "not_before": asked and asked.not_before,
        }


def attempt_ref(job_id: str, step: str, attempt: int) -> Ref:
    """Return the ref of one attempt; its key is also the CloudEvents subject of the executor's events about it."""
    return Ref(ATTEMPT, f"{job_id}/{step}/{attempt}")


def ref_of(data: StepEventData) -> Ref:
    """Return the attempt that an event is about."""
    return attempt_ref(data.job_id, data.step, data.attempt)


_OF_THE_ORCHESTRATOR = (StepRequested, StepPriorityChanged, StepCheckpointRequested, StepCancelRequested)


class ExecutorDomain:
    """The domain of a service that executes steps; a service with aggregates of its own extends it.

    Events about kinds that EXECUTOR_OF gives to another service touch nothing. Own events always touch their attempt, also
    after a kind has moved to another service: their sequence numbers must have no gap.
    """

    def __init__(self, service: str) -> None:
        self.service = service
        self.source = f"neuroweaver/{service}"
        self.aggregates: Mapping[str, AggregateType] = {ATTEMPT: Attempts()}
        self.handles = frozenset(event.type_name() for event in JOBS.events if issubclass(event, StepEventData))

    def touches(self, event: Event) -> tuple[Ref, ...]:
        """Return the event's attempt, if this service executes it."""
        data = event.data
        if not isinstance(data, StepEventData):
            return ()
        if event.source == self.source:
            return (ref_of(data),)
        orchestrated = isinstance(data, _OF_THE_ORCHESTRATOR)
        ours = orchestrated and EXECUTOR_OF.get(data.kind) == self.service
        return (ref_of(data),) if ours else ()

    def owner(self, event: Event) -> Ref:
        """Return the attempt: it numbers all own events about it, including extra ones such as FeedbackRecorded."""
        if not isinstance(event.data, StepEventData):
            raise TypeError(f"{event.type} is not an event of an attempt; the domain that emits it must name its owner")
        return ref_of(event.data)

    def evolve(self, ref: Ref, state: Any, event: Event, logged: Logged | None) -> State:
        """Return the attempt after `event`; extra own events change no field."""
        if not isinstance(state, AttemptState):
            raise TypeError(f"{ref.aggregate} {ref.key} is not an attempt; the domain that keeps it must evolve it")
        match event.data:
            case StepRequested() if not _came_first(state, event):
                return state
            case StepRequested():
                return state.model_copy(update={"requested": event.data, "requested_at": event.time, **opening(event)})
            case StepPriorityChanged(priority=priority):
                change = Reprioritised(at=event.time, event_id=event.id, priority=priority)
                known = state.reprioritised
                if known and (known.at, known.event_id) >= (change.at, change.event_id):
                    return state
                return state.model_copy(update={"reprioritised": change})
            case StepCheckpointRequested():
                wanted, last = CheckpointWanted(at=event.time, event_id=event.id), state.checkpoint_wanted
                if last and (last.at, last.event_id) >= (wanted.at, wanted.event_id):
                    return state
                return state.model_copy(update={"checkpoint_wanted": wanted})
            case StepCancelRequested():
                return state.model_copy(update={"cancel_requested": True})
            case StepStarted(worker=worker):
                started = state.started_at or event.time
                return state.model_copy(update={"started_at": started, "starts": state.starts + 1, "worker": worker})
            case StepCompleted(result=result):
                return state.model_copy(update={"outcome": "completed", "result": result, "ended_at": event.time})
            case StepFailed(fault=fault):
                return state.model_copy(update={"outcome": "failed", "fault": fault, "ended_at": event.time})
            case StepCancelled():
                return state.model_copy(update={"outcome": "cancelled", "ended_at": event.time})
        return state

    def decide(self, ref: Ref, states: States, now: datetime) -> Decision | None:
        """Ends a cancelled attempt at once if no worker has begun it; otherwise a worker ends it."""
        state = states[ref]
        if not isinstance(state, AttemptState) or state.requested is None:
            return None
        if state.cancel_requested and state.outcome is None and not state.starts:
            return decision(state.requested, StepCancelled)
        return None


def _came_first(state: AttemptState, event: Event) -> bool:
    """Return whether `event` is the request that counts: the earliest written one, in whatever order they are read."""
    known = state.requested_at and state.opened_by and (state.requested_at, state.opened_by)
    return not known or (event.time, event.id) < known


def decision(about: StepEventData, event: type[StepEventData], **fields: object) -> Decision:
    """Return an own event about the attempt that `about` names."""
    ref = ref_of(about)
    data = event(job_id=about.job_id, step=about.step, attempt=about.attempt, kind=about.kind, **fields)
    return Decision(ref, ref.key, data)
