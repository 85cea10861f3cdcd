"""Defines the HTTP API's views of a job, typed and documented; the command line parses the same types."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from schemas.artifacts import ArtifactRef
from schemas.jobs import FeedbackRecorded, StepFault
from schemas.progress import DeviceReading
from schemas.reasons import Reason
from schemas.requests import JobRequest
from schemas.steps import Policy
from schemas.usage import StepUsage
from services.orchestrator.domain.state import Status

StepStatus = Literal["waiting", "queued", "running", "stopping", "completed", "failed", "cancelled", "skipped"]


class JobSummary(BaseModel):
    """One job in a list."""

    job_id: str
    status: Status
    requester: str | None = Field(description="Who requested the job; null if the request does not say.")
    pipeline: str | None = Field(description="Name of the preset, or `explicit`.")
    model: str | None = Field(description="Name of the model to which the version belongs.")
    version: str | None = Field(
        description="The registered version; null before the registration, and without a register step."
    )
    steps: int | None = Field(description="Number of steps of the plan; null before the job is accepted.")
    steps_done: int | None = Field(description="Number of completed steps.")
    requested_at: datetime = Field(description="Time of the request.")
    ended_at: datetime | None = Field(description="When the job ended or was rejected.")
    updated_at: datetime = Field(description="Time of the latest event about the job.")
    sequence: int = Field(description="Number of the orchestrator's latest event about the job (`ce_sequence`).")


class JobPage(BaseModel):
    """Jobs, the newest request first."""

    items: list[JobSummary]
    next: str | None = Field(description="`cursor` for the next page; null at the end.")


class UsageView(BaseModel):
    """What the attempts of a job have used that have ended, also those that failed."""

    seconds: float = Field(description="Time for which they ran, added up.")
    joules: float | None = Field(description="Energy, added up over the attempts that measured it; null: none did.")
    costs: dict[str, float] = Field(description="Cost by currency, at the operator's prices; empty without prices.")


class AttemptView(BaseModel):
    """One attempt at a step."""

    attempt: int = Field(description="Number, from 1.")
    requested_at: datetime
    not_before: datetime | None = Field(description="Earliest start of the attempt, if it is a retry.")
    deadline: datetime = Field(description="The attempt is closed if it has no outcome by then.")
    started_at: datetime | None = Field(description="When a worker first started it; null while it waits for a worker.")
    starts: int = Field(description="How often a worker started it or took it over.")
    worker: str | None = Field(description="The worker that started it last.")
    closed: str | None = Field(description="Why the orchestrator closed it: cancel, deadline, failing or pause.")
    outcome: str | None = Field(description="completed, failed or cancelled, as the executor reported.")
    ended_at: datetime | None = Field(description="Time of the outcome.")
    fault: StepFault | None = Field(description="Why the attempt failed, with the last lines of its log.")
    usage: StepUsage | None = Field(description="What it used; null until it has ended, and if it never ran.")


class StepView(BaseModel):
    """One step of the plan."""

    name: str
    kind: str
    needs: list[str] = Field(description="Steps that must be completed before this one.")
    status: StepStatus = Field(
        description="waiting: for other steps; queued: for a worker; stopping: closed, not yet stopped; skipped: the job "
        "ended first."
    )
    outputs: dict[str, ArtifactRef] = Field(description="Artifacts by name, when completed.")
    metrics: dict[str, float | None] = Field(description="Numbers by name, when completed; null: not measurable.")
    facts: dict[str, str] = Field(description="Digests, versions and other text by name, when completed.")
    feedback: FeedbackRecorded | None = Field(description="Statistics of the AI feedback; for label steps only.")
    attempts: list[AttemptView] = Field(description="Attempts, oldest first; empty while the step waits.")


class FailureView(BaseModel):
    """How a job failed."""

    step: str | None = Field(description="The step that failed finally; null if the job's own deadline passed.")
    fault: StepFault = Field(description="Cause, message, reasons to act on, and the last lines of the step's log.")
    remedy: str = Field(description="How the job can be continued, or started anew.")


class CancelView(BaseModel):
    """A request to cancel the job."""

    requested_at: datetime
    requester: str
    reason: str


class JobView(BaseModel):
    """A job, as its events describe it."""

    job_id: str
    status: Status = Field(
        description="requested: not yet decided; running; paused; cancelling: waits for running steps; completed; failed; "
        "cancelled; rejected."
    )
    requester: str | None = Field(description="Who requested the job; null if the request does not say.")
    pipeline: str | None = Field(description="Name of the preset, or `explicit`.")
    model: str | None = Field(description="Name of the model to which the version belongs.")
    version: str | None = Field(
        description="The registered version; null before the registration, and without a register step."
    )
    priority: int = Field(description="Priority of the job's next attempts; a higher number runs earlier.")
    requested_at: datetime | None = Field(description="Time of the request; null until the orchestrator has read it.")
    accepted_at: datetime | None
    ended_at: datetime | None = Field(description="When the job ended or was rejected.")
    updated_at: datetime | None = Field(description="Time of the latest event about the job.")
    deadline: datetime | None = Field(description="Time by which the job must have ended.")
    budget: float | None = Field(default=None, description="The most that the job may cost; null: no limit.")
    usage: UsageView | None = Field(default=None, description="What it has used; null before it is accepted.")
    sequence: int = Field(description="Number of the orchestrator's latest event about the job (`ce_sequence`).")
    reasons: list[Reason] = Field(description="Why it was rejected; send the corrected request under a new id.")
    failure: FailureView | None = Field(description="Why the job failed.")
    cancel: CancelView | None = Field(description="The request to cancel, if there is one.")
    conflicts: list[str] = Field(
        description="Ids of later requests under this id with other content; they changed nothing."
    )
    steps: list[StepView] = Field(description="Steps in the order of the plan; empty before the job is accepted.")


class JobDetail(JobView):
    """A job with its whole request and its policy."""

    request: JobRequest | None = Field(description="The request with defaults filled in; null unless accepted.")
    sent: dict[str, Any] | None = Field(description="The request as sent; null once the job is accepted.")
    policy: Policy | None = Field(description="Retries and time-outs of the job.")


class StepProgress(BaseModel):
    """Progress of a step: the numbers of its latest attempt; null until it has reported them."""

    step: str
    kind: str
    status: StepStatus
    attempt: int = Field(description="The latest attempt; 0 before the first.")
    done: int | None = Field(default=None, description="Units done.")
    of: int | None = Field(default=None, description="Total number of units.")
    unit: str | None = Field(default=None, description="The unit that is counted: steps, prompts or rows.")
    loss: float | None = Field(default=None, description="Training loss of the latest step.")
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    memory_bytes: int | None = Field(default=None, description="Resident memory of the working process.")
    eta_seconds: float | None = Field(default=None, description="Estimated seconds until the step ends.")
    gradient_norm: float | None = Field(
        default=None, description="Norm of the latest step's gradient, before it is clipped."
    )
    losses: tuple[float, ...] = Field(
        default=(), description="The losses of the run so far, oldest first, as means over equal spans."
    )
    devices: tuple[DeviceReading, ...] = Field(
        default=(), description="The GPUs that the attempt computes on, or the processors, as last read."
    )
    at: datetime | None = Field(default=None, description="When the attempt last reported its progress.")


class JobProgress(BaseModel):
    """Progress of a job."""

    job_id: str
    status: Status
    steps_done: int
    steps_of: int
    steps: list[StepProgress] = Field(description="The plan in its order.")
