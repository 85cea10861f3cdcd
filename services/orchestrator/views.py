"""Defines the HTTP API's views of a job, typed and documented; the command line parses the same types."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from schemas.artifacts import ArtifactRef
from schemas.jobs import FeedbackRecorded, StepFault
from schemas.reasons import Reason
from schemas.requests import JobRequest
from schemas.steps import Policy
from services.orchestrator.domain.state import Status

StepStatus = Literal["waiting", "queued", "running", "stopping", "completed", "failed", "cancelled", "skipped"]


class JobSummary(BaseModel):
    """One job in a list."""

    job_id: str
    status: Status
    requester: str | None = Field(description="Who asked; null where the request does not say.")
    pipeline: str | None = Field(description="Name of the preset, or `explicit`.")
    model: str | None = Field(description="Name of the model that gets the version.")
    version: str | None = Field(description="The version registered; null before, and without a register step.")
    steps: int | None = Field(description="Steps of the plan; null before the job is accepted.")
    steps_done: int | None = Field(description="Steps completed.")
    requested_at: datetime = Field(description="Time of the request.")
    ended_at: datetime | None = Field(description="When it ended or was rejected.")
    updated_at: datetime = Field(description="Time of the latest event about the job.")
    sequence: int = Field(description="Number of the orchestrator's latest event about the job (`ce_sequence`).")


class JobPage(BaseModel):
    """Jobs, the newest request first."""

    items: list[JobSummary]
    next: str | None = Field(description="Pass it as `cursor` for the page behind; null at the end.")


class AttemptView(BaseModel):
    """One attempt at a step."""

    attempt: int = Field(description="Number, from 1.")
    requested_at: datetime
    not_before: datetime | None = Field(description="Earliest start of a retry.")
    deadline: datetime = Field(description="It is closed when it has no outcome by then.")
    started_at: datetime | None = Field(description="First start; null while it waits for a worker.")
    starts: int = Field(description="How often a worker began or took over.")
    worker: str | None = Field(description="The worker that began last.")
    closed: str | None = Field(description="Why the orchestrator closed it: cancel, deadline or failing.")
    outcome: str | None = Field(description="completed, failed or cancelled, as the executor said.")
    ended_at: datetime | None = Field(description="Time of the outcome.")
    fault: StepFault | None = Field(description="Why it failed, with the last lines of its log.")


class StepView(BaseModel):
    """One step of the plan."""

    name: str
    kind: str
    needs: list[str] = Field(description="Steps that must be completed before.")
    status: StepStatus = Field(
        description="waiting: for other steps; queued: for a worker; stopping: closed, not yet stopped; skipped: the job ended."
    )
    outputs: dict[str, ArtifactRef] = Field(description="Artifacts by name, when completed.")
    metrics: dict[str, float | None] = Field(description="Numbers by name, when completed; null: not measurable.")
    facts: dict[str, str] = Field(description="Digests, versions and other text by name, when completed.")
    feedback: FeedbackRecorded | None = Field(description="What AI feedback amounted to; label steps only.")
    attempts: list[AttemptView] = Field(description="Oldest first; empty while the step waits.")


class FailureView(BaseModel):
    """How a job failed."""

    step: str | None = Field(description="The step that failed for good; null for the job's own deadline.")
    fault: StepFault = Field(description="Cause, message, reasons to act on, and the last lines of the step's log.")


class CancelView(BaseModel):
    """A wish to cancel."""

    requested_at: datetime
    requester: str
    reason: str


class JobView(BaseModel):
    """A job as its events tell it."""

    job_id: str
    status: Status = Field(
        description="requested: not yet decided; running; cancelling: waits for running steps; completed; failed; cancelled; "
        "rejected."
    )
    requester: str | None = Field(description="Who asked; null where the request does not say.")
    pipeline: str | None = Field(description="Name of the preset, or `explicit`.")
    model: str | None = Field(description="Name of the model that gets the version.")
    version: str | None = Field(description="The version registered; null before, and without a register step.")
    requested_at: datetime | None = Field(description="Time of the request; null while it is on its way.")
    accepted_at: datetime | None
    ended_at: datetime | None = Field(description="When it ended or was rejected.")
    updated_at: datetime | None = Field(description="Time of the latest event about the job.")
    deadline: datetime | None = Field(description="By when it must have ended.")
    sequence: int = Field(description="Number of the orchestrator's latest event about the job (`ce_sequence`).")
    reasons: list[Reason] = Field(description="Why it was rejected; send the corrected request under a new id.")
    failure: FailureView | None = Field(description="Why the job failed.")
    cancel: CancelView | None = Field(description="The wish to cancel, if there is one.")
    conflicts: list[str] = Field(
        description="Ids of later requests under this id with other content; they changed nothing."
    )
    steps: list[StepView] = Field(description="The plan in its order; empty before the job is accepted.")


class JobDetail(JobView):
    """A job with all it was asked for."""

    request: JobRequest | None = Field(description="The request with defaults filled in; null unless accepted.")
    sent: dict[str, Any] | None = Field(description="The request as it came; null once accepted.")
    policy: Policy | None = Field(description="Retries and patience that hold for the job.")


class StepProgress(BaseModel):
    """How far a step is. Numbers of the latest attempt; null where it has told nothing yet."""

    step: str
    kind: str
    status: StepStatus
    attempt: int = Field(description="The latest attempt; 0 before the first.")
    done: int | None = Field(default=None, description="Units done.")
    of: int | None = Field(default=None, description="Units in all.")
    unit: str | None = Field(default=None, description="What is counted: steps, prompts or rows.")
    loss: float | None = Field(default=None, description="Training loss of the latest step.")
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    memory_bytes: int | None = Field(default=None, description="Resident memory of the working process.")
    eta_seconds: float | None = Field(default=None, description="Estimated seconds until the step ends.")
    at: datetime | None = Field(default=None, description="When the attempt last told its progress.")


class JobProgress(BaseModel):
    """How far a job is."""

    job_id: str
    status: Status
    steps_done: int
    steps_of: int
    steps: list[StepProgress] = Field(description="The plan in its order.")
