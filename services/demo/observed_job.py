"""Folds the events of one job into one value, from which the screen, the report and the exit code are derived.

The demo is an outsider: it knows its job only from the topics. Events on different topics have no mutual order, so nothing
here depends on which of two topics is read first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from schemas.envelope import Event
from schemas.jobs import (
    FeedbackRecorded,
    JobAccepted,
    JobCancelled,
    JobCompleted,
    JobFailed,
    JobRejected,
    StepCancelled,
    StepCompleted,
    StepEventData,
    StepFailed,
    StepFault,
    StepRequested,
    StepResult,
    StepStarted,
)
from schemas.models import AliasRefused, ModelPromoted, ModelRegistered
from schemas.progress import StepProgressed
from schemas.reasons import Reason
from schemas.requests import JobRequested

StepState = Literal["waiting", "queued", "running", "done", "failed", "cancelled"]
Outcome = Literal["completed", "failed", "rejected", "cancelled"]


@dataclass(frozen=True)
class ObservedStep:
    """One step, according to the events that were read."""

    name: str
    kind: str
    state: StepState = "waiting"
    attempt: int = 0
    started: datetime | None = None
    """When its first attempt began."""
    ended: datetime | None = None
    progress: StepProgressed | None = None
    result: StepResult | None = None
    fault: StepFault | None = None

    @property
    def seconds(self) -> float | None:
        """Seconds from the first start to the completion, retries included."""
        return (self.ended - self.started).total_seconds() if self.started and self.ended else None


@dataclass(frozen=True)
class ObservedJob:
    """One job, according to the events that were read."""

    job_id: str
    steps: Mapping[str, ObservedStep] = field(default_factory=dict)
    """In the order of the plan."""
    requested: datetime | None = None
    ended: datetime | None = None
    outcome: Outcome | None = None
    reasons: tuple[Reason, ...] = ()
    """Why the job was rejected."""
    cancel_reason: str = ""
    failed_step: str | None = None
    fault: StepFault | None = None
    alias: str | None = None
    """The alias that was requested."""
    completed: JobCompleted | None = None
    registered: ModelRegistered | None = None
    promoted: ModelPromoted | None = None
    refused: AliasRefused | None = None
    """Why the alias did not move."""
    feedback: FeedbackRecorded | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    """Number of records about this job, by topic."""

    @property
    def complete(self) -> bool:
        """Whether all events have been read: the job has ended, and the registry's events about its model have arrived."""
        if self.outcome != "completed":
            return self.outcome is not None
        model_is_due = self.completed is not None and self.completed.model is not None
        alias_is_due = model_is_due and self.alias is not None
        return (not model_is_due or self.registered is not None) and (
            not alias_is_due or self.promoted is not None or self.refused is not None
        )

    @property
    def seconds(self) -> float | None:
        """Seconds from the request to the end."""
        return (self.ended - self.requested).total_seconds() if self.requested and self.ended else None

    def result(self, step: str) -> StepResult | None:
        """The result of `step`; None if the pipeline has no such step or it is not completed."""
        view = self.steps.get(step)
        return view.result if view else None


def fold(job: ObservedJob, topic: str, event: Event) -> ObservedJob:
    """`job` after one more event of the job."""
    job = replace(job, counts={**job.counts, topic: job.counts.get(topic, 0) + 1})
    match event.data:
        case JobRequested():
            return replace(job, requested=job.requested or event.time)
        case JobAccepted(plan=plan, request=request):
            steps = {step.name: ObservedStep(step.name, step.kind) for step in plan}
            return replace(job, steps={**steps, **job.steps}, alias=request.alias)
        case JobRejected(reasons=reasons):
            return replace(job, outcome="rejected", reasons=reasons, ended=event.time)
        case JobCompleted() as completed:
            return replace(job, outcome="completed", completed=completed, ended=event.time)
        case JobFailed(step=step, fault=fault):
            return replace(job, outcome="failed", failed_step=step, fault=fault, ended=event.time)
        case JobCancelled(reason=reason):
            return replace(job, outcome="cancelled", cancel_reason=reason, ended=event.time)
        case ModelRegistered() as registered:
            return replace(job, registered=registered)
        case ModelPromoted() as promoted:
            return replace(job, promoted=promoted)
        case AliasRefused() as refused:
            return replace(job, refused=refused)
        case FeedbackRecorded() as feedback:
            return replace(job, feedback=feedback)
        case StepEventData() as data:
            view = _step(job.steps.get(data.step) or ObservedStep(data.step, data.kind), data, event.time)
            return replace(job, steps={**job.steps, data.step: view})
    return job


def _step(view: ObservedStep, data: StepEventData, time: datetime) -> ObservedStep:
    if data.attempt < view.attempt:  # an event of an attempt that was replaced
        return view
    if data.attempt > view.attempt:
        view = replace(view, attempt=data.attempt, progress=None, fault=None, ended=None, state="queued")
    match data:
        case StepRequested():
            return view
        case StepStarted():
            return replace(view, state="running", started=view.started or time) if view.ended is None else view
        case StepProgressed():  # on another topic, so it may be late
            return view if view.ended else replace(view, progress=data)
        case StepCompleted(result=result):
            return replace(view, state="done", result=result, ended=time)
        case StepFailed(fault=fault):
            return replace(view, state="failed", fault=fault, ended=time)
        case StepCancelled():
            return replace(view, state="cancelled", ended=time)
    return view
