"""Why: what HTTP tells of a job, typed and documented; each a pure function of its row, the same for every reader."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field
from sqlalchemy import RowMapping

from schemas.artifacts import ArtifactRef
from schemas.jobs import FeedbackRecorded, StepFault, StepResult
from schemas.reasons import Reason
from schemas.requests import JobRequest
from schemas.steps import PlannedStep, Policy
from services.orchestrator.domain.job import pipeline_name
from services.orchestrator.domain.state import ENDED, Asked, Attempt, JobState, Status
from services.orchestrator.queries import JobRow, Page, ProgressRow

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


def job_page(page: Page) -> JobPage:
    """A page of a list."""
    return JobPage(items=[_summary(row) for row in page.rows], next=page.next)


def _summary(row: RowMapping) -> JobSummary:
    return JobSummary(job_id=row["key"], **{name: row[name] for name in JobSummary.model_fields if name != "job_id"})


def job_view(row: JobRow) -> JobView:
    """A job without what it was asked for."""
    return JobView(**_fields(row))


def job_detail(row: JobRow) -> JobDetail:
    """A job with everything."""
    accepted, wish = row.state.accepted, row.state.wish
    return JobDetail(
        **_fields(row),
        request=accepted and accepted.request,
        sent=wish.request if wish and not accepted else None,
        policy=accepted and accepted.policy,
    )


def undecided_view(job_id: str, request: Mapping[str, Any]) -> JobView:
    """A job whose request was published but has not been read yet."""
    return JobView(
        job_id=job_id, status="requested", requester=request.get("requester"), pipeline=None,
        model=request.get("register_as"), version=None, requested_at=None, accepted_at=None, ended_at=None, updated_at=None,
        deadline=None, sequence=0, reasons=[], failure=None, cancel=None, conflicts=[], steps=[],
    )  # fmt: skip


def job_progress(row: JobRow, progress: Iterable[ProgressRow]) -> JobProgress:
    """How far each step of the plan is."""
    told = {(item.data.step, item.data.attempt): item for item in progress}
    plan = row.state.accepted.plan if row.state.accepted else ()
    return JobProgress(
        job_id=row.job_id,
        status=row.status,
        steps_done=sum(row.state.completed(step.name) for step in plan),
        steps_of=len(plan),
        steps=[_step_progress(row.state, step, told.get((step.name, row.state.latest(step.name)))) for step in plan],
    )


def _step_progress(state: JobState, step: PlannedStep, told: ProgressRow | None) -> StepProgress:
    numbers = told.data.model_dump(exclude={"job_id", "step", "attempt", "kind"}) if told else {}
    return StepProgress(
        step=step.name, kind=step.kind, status=step_status(state, step.name), attempt=state.latest(step.name),
        at=told.at if told else None, **numbers,
    )  # fmt: skip


def _fields(row: JobRow) -> dict[str, Any]:
    state = row.state
    accepted, cancel, ending = state.accepted, state.cancel, state.ending
    sent = state.wish.request if state.wish else {}
    return {
        "job_id": row.job_id,
        "status": row.status,
        "requester": _text(sent.get("requester")),
        "pipeline": pipeline_name(state),
        "model": _text(sent.get("register_as")),
        "version": ending and ending.version,
        "requested_at": state.wish and state.wish.at,
        "accepted_at": accepted and accepted.at,
        "ended_at": state.ended_at,
        "updated_at": row.updated_at,
        "deadline": accepted and accepted.request.deadline,
        "sequence": row.sequence,
        "reasons": list(state.rejected.reasons) if state.rejected else [],
        "failure": FailureView(step=ending.step, fault=ending.fault) if ending and ending.fault else None,
        "cancel": cancel and CancelView(requested_at=cancel.at, requester=cancel.requester, reason=cancel.reason),
        "conflicts": list(state.conflicts),
        "steps": [_step(state, step) for step in accepted.plan] if accepted else [],
    }


def _step(state: JobState, step: PlannedStep) -> StepView:
    result = state.result(step.name) or StepResult()
    attempts = state.attempts.get(step.name, {})
    latest = attempts.get(state.latest(step.name), Attempt())
    return StepView(
        name=step.name, kind=step.kind, needs=list(step.needs), status=step_status(state, step.name),
        outputs=result.outputs, metrics=result.metrics, facts=result.facts, feedback=latest.feedback,
        attempts=[_attempt(number, attempt, attempt.asked) for number, attempt in sorted(attempts.items()) if attempt.asked],
    )  # fmt: skip


def _attempt(number: int, attempt: Attempt, asked: Asked) -> AttemptView:
    started, outcome = attempt.started, attempt.outcome
    return AttemptView(
        attempt=number,
        requested_at=asked.at,
        not_before=asked.not_before,
        deadline=asked.deadline,
        started_at=started and started.at,
        starts=started.times if started else 0,
        worker=started and started.worker,
        closed=attempt.closed and attempt.closed.reason,
        outcome=outcome and outcome.kind,
        ended_at=outcome and outcome.at,
        fault=attempt.fault,
    )


def step_status(state: JobState, step: str) -> StepStatus:
    """One word for a step, from its attempts and from whether the job goes on."""
    ended = state.status in ENDED
    attempt = state.attempts.get(step, {}).get(state.latest(step))
    if state.completed(step):
        return "completed"
    if attempt is None:
        return "skipped" if ended else "waiting"
    if attempt.fault:
        return "failed"
    if attempt.closed:
        return "cancelled" if ended or attempt.outcome else "stopping"
    return "running" if attempt.started else "queued"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
