"""Routes that control a job: retry, pause, resume and change of priority."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from schemas.base import Storable, Strict, Whole
from schemas.envelope import Event
from schemas.requests import PRIORITY_AT_MOST, JobControlRequested
from services.chassis.kafka.publisher import outside_event
from services.chassis.postgres.notifications import Notifications
from services.chassis.serving.problem import Problem, problems
from services.orchestrator.domain.controls import kind_of
from services.orchestrator.intake import EDGE
from services.orchestrator.queries import JobQueries, JobRow
from services.orchestrator.rendering import job_view
from services.orchestrator.views import JobView
from services.orchestrator.watching import watching


class ControlOptions(Strict):
    """Who controls the job, and why; optional."""

    requester: Storable = Field(default="unknown", min_length=1, max_length=256, description="Who requests it.")
    reason: Storable = Field(default="", max_length=2000, description="Why it is requested.")


class PriorityOptions(ControlOptions):
    """The new priority."""

    priority: Whole = Field(
        ge=-PRIORITY_AT_MOST, le=PRIORITY_AT_MOST, description="A job with a higher number runs earlier."
    )


def add_controls(
    api: APIRouter,
    candidate: Any,
    publish: Callable[[Event, str], Awaitable[None]],
    jobs: JobQueries,
    notifications: Notifications,
    wait_seconds: float,
) -> None:
    """Add the routes. `candidate` is the parameter type that finds the job; `publish` raises a 503 Problem."""

    async def control(job: JobRow, name: str, options: ControlOptions | None, priority: int | None = None) -> JobView:
        """Publish the request and wait briefly for the decision. Raises a 409 Problem if it was refused."""
        options = options or ControlOptions()
        data = JobControlRequested(
            job_id=job.job_id, control=name, priority=priority, requester=options.requester, reason=options.reason
        )
        asked = outside_event(EDGE, data, correlation_id=job.job_id, traceparent=job.state.traceparent, subject=job.job_id)
        kind = kind_of(name)
        with watching(notifications, jobs, job.job_id) as watch:
            await publish(asked, f"send it again: {name}")
            job = await watch.until(lambda row: _answered(row, kind, asked.id), wait_seconds) or job
        if _answered(job, kind, asked.id) and (reasons := job.state.answers[kind].refused):
            raise Problem.of(409, f"The {name} was refused", reasons)
        return job_view(job)

    @api.post("/{job_id}/retry", status_code=202, summary="Retry a failed job", responses=problems(404, 409, 503))
    async def retry(job: candidate, options: ControlOptions | None = None) -> JobView:
        """Continues the job under the same id from its failed step; completed steps are not done again."""
        return await control(job, "retry", options)

    @api.post("/{job_id}/pause", status_code=202, summary="Pause a job", responses=problems(404, 409, 503))
    async def pause(job: candidate, options: ControlOptions | None = None) -> JobView:
        """Running steps write a checkpoint and stop, and no other begins until the job is resumed."""
        return await control(job, "pause", options)

    @api.post("/{job_id}/resume", status_code=202, summary="Resume a paused job", responses=problems(404, 409, 503))
    async def resume(job: candidate, options: ControlOptions | None = None) -> JobView:
        """The steps that were stopped continue from their checkpoints."""
        return await control(job, "resume", options)

    @api.post("/{job_id}/checkpoint", status_code=202, summary="Write checkpoints now", responses=problems(404, 409, 503))
    async def checkpoint(job: candidate, options: ControlOptions | None = None) -> JobView:
        """Running steps that can write a checkpoint do so and go on."""
        return await control(job, "checkpoint", options)

    @api.post(
        "/{job_id}/priority", status_code=202, summary="Change a job's priority", responses=problems(404, 409, 422, 503)
    )
    async def priority(job: candidate, options: PriorityOptions) -> JobView:
        """It counts for the attempts that wait and for those that come; a running one goes on."""
        return await control(job, "priority", options, options.priority)


def _answered(row: JobRow, kind: str, request_id: str) -> bool:
    answer = row.state.answers.get(kind)
    return answer is not None and answer.request_id == request_id
