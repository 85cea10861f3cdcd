"""Renders rows as the views of the HTTP API; each view is a pure function of its row, the same for every reader."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from schemas.jobs import StepResult
from schemas.steps import PlannedStep
from services.chassis.serving.http import API
from services.orchestrator.domain.decide import PAUSE
from services.orchestrator.domain.job import pipeline_name
from services.orchestrator.domain.spending import spent
from services.orchestrator.domain.state import ENDED, Attempt, JobState, Requested
from services.orchestrator.queries import JobRow, ProgressRow, Stored, StoredProgress
from services.orchestrator.views import (
    AttemptView,
    CancelView,
    FailureView,
    JobDetail,
    JobProgress,
    JobView,
    StepProgress,
    StepStatus,
    StepView,
    UsageView,
)

_NO_RESULT, _NO_ATTEMPT = StepResult(), Attempt()


def job_view(row: JobRow) -> JobView:
    """Return a job without its request."""
    return JobView(**_fields(row))


def job_detail(row: JobRow) -> JobDetail:
    """Return a job with everything."""
    accepted, wish = row.state.accepted, row.state.wish
    return JobDetail(
        **_fields(row),
        request=accepted and accepted.request,
        sent=wish.request if wish and not accepted else None,
        policy=accepted and accepted.policy,
    )


def stored_detail(stored: Stored) -> JobDetail:
    """Return the same, from an undecoded row."""
    return job_detail(stored.row)


def undecided_view(job_id: str, request: Mapping[str, Any]) -> JobView:
    """Return a job whose request was published but has not been read yet."""
    return JobView(
        job_id=job_id, status="requested", requester=request.get("requester"), pipeline=None,
        model=request.get("register_as"), version=None, priority=0, requested_at=None, accepted_at=None, ended_at=None, updated_at=None,
        deadline=None, sequence=0, reasons=[], failure=None, cancel=None, conflicts=[], steps=[],
    )  # fmt: skip


def job_progress(row: JobRow, progress: Iterable[ProgressRow]) -> JobProgress:
    """Return the progress of each step of the plan."""
    by_attempt = {(item.data.step, item.data.attempt): item for item in progress}
    plan = row.state.accepted.plan if row.state.accepted else ()
    return JobProgress(
        job_id=row.job_id,
        status=row.status,
        steps_done=sum(row.state.completed(step.name) for step in plan),
        steps_of=len(plan),
        steps=[_step_progress(row.state, step, by_attempt.get((step.name, row.state.latest(step.name)))) for step in plan],
    )


def stored_progress(stored: StoredProgress) -> JobProgress:
    """Return the same, from undecoded rows."""
    return job_progress(stored.job.row, stored.rows)


def _step_progress(state: JobState, step: PlannedStep, progress: ProgressRow | None) -> StepProgress:
    numbers = progress.data.model_dump(exclude={"job_id", "step", "attempt", "kind"}) if progress else {}
    return StepProgress(
        step=step.name, kind=step.kind, status=step_status(state, step.name), attempt=state.latest(step.name),
        at=progress.at if progress else None, **numbers,
    )  # fmt: skip


def _fields(row: JobRow) -> dict[str, Any]:
    state = row.state
    accepted, cancel, ending = state.accepted, state.cancel, state.ending
    sent = state.sent
    return {
        "job_id": row.job_id,
        "status": row.status,
        "requester": _text(sent.get("requester")),
        "pipeline": pipeline_name(state),
        "model": _text(sent.get("register_as")),
        "version": ending and ending.version,
        "priority": state.current_priority,
        "requested_at": state.requested_at,
        "accepted_at": accepted and accepted.at,
        "ended_at": state.ended_at,
        "updated_at": row.updated_at,
        "deadline": accepted and accepted.request.deadline,
        "budget": accepted and accepted.request.budget,
        "usage": UsageView(**spent(state).model_dump()) if accepted else None,
        "sequence": row.sequence,
        "reasons": list(state.rejected.reasons) if state.rejected else [],
        "failure": FailureView(step=ending.step, fault=ending.fault, remedy=_remedy(row.job_id))
        if ending and ending.fault
        else None,
        "cancel": cancel and CancelView(requested_at=cancel.at, requester=cancel.requester, reason=cancel.reason),
        "conflicts": list(state.conflicts),
        "steps": [_step(state, step) for step in accepted.plan] if accepted else [],
    }


def _remedy(job_id: str) -> str:
    """What a failed job needs: the same request under its id starts nothing, because it is the same job."""
    return (
        f"POST {API}/training/{quote(job_id, safe='')}/retry continues the job from its failed step and keeps what was "
        "completed; to run it from the start, or with another request, send it under a new job_id"
    )


def _step(state: JobState, step: PlannedStep) -> StepView:
    result = state.result(step.name) or _NO_RESULT
    attempts = state.attempts.get(step.name, {})
    latest = attempts.get(state.latest(step.name), _NO_ATTEMPT)
    return StepView(
        name=step.name, kind=step.kind, needs=list(step.needs), status=step_status(state, step.name),
        outputs=result.outputs, metrics=result.metrics, facts=result.facts, feedback=latest.feedback,
        attempts=[_attempt(number, attempt, attempt.asked) for number, attempt in sorted(attempts.items()) if attempt.asked],
    )  # fmt: skip


def _attempt(number: int, attempt: Attempt, asked: Requested) -> AttemptView:
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
        usage=outcome and outcome.usage,
    )


def step_status(state: JobState, step: str) -> StepStatus:
    """Return the status of a step, from its attempts and from whether the job has ended."""
    ended = state.status in ENDED
    attempt = state.attempts.get(step, {}).get(state.latest(step))
    if state.completed(step):
        return "completed"
    if attempt is None:
        return "skipped" if ended else "waiting"
    if attempt.fault:
        return "failed"
    if attempt.closed and attempt.closed.reason == PAUSE and attempt.outcome and not ended:
        return "waiting"
    if attempt.closed:
        return "cancelled" if ended or attempt.outcome else "stopping"
    return "running" if attempt.started else "queued"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
