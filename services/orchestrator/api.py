"""Routes to start, watch and cancel jobs. Writes only publish to the topic `requests`; no decision is made here."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from pydantic import AfterValidator, Field

from schemas.base import Storable, Strict
from schemas.envelope import REQUEST_BYTES, Event
from schemas.reasons import Reason
from schemas.requests import JobCancelRequested, JobRequest, JobRequested
from schemas.steps import Policy
from services.chassis.kafka.publisher import BrokerAway, outside_event
from services.chassis.serving.http import API
from services.chassis.serving.problem import Problem, problems
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.web.offloading import in_thread_if_large
from services.chassis.serving.web.parameters import Text, no_folder
from services.chassis.serving.web.query import parse_query, query_parameters
from services.chassis.serving.web.response_cache import JSON, ResponseCache, page_answer, size_of
from services.chassis.serving.web.streams import DOCUMENTED, EventStream
from services.orchestrator.control_api import add_controls
from services.orchestrator.domain.content import content_digest
from services.orchestrator.domain.state import ENDED
from services.orchestrator.domain.validation import RejectedRequest, examine
from services.orchestrator.intake import EDGE, job_requested
from services.orchestrator.job_events import JobEvents
from services.orchestrator.polling import JobPoller
from services.orchestrator.queries import JobQueries, JobRow, JobsAsked
from services.orchestrator.queue_api import queue_router
from services.orchestrator.rendering import job_view, stored_detail, stored_progress, undecided_view
from services.orchestrator.reports import add_reports
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.views import JobDetail, JobPage, JobProgress, JobView
from services.orchestrator.watching import watching

_RETRY = {"Retry-After": "2"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{JobRequest.__name__}"}}},
    }
}


class CancelRequest(Strict):
    """Who cancels the job, and why; optional."""

    requester: Storable = Field(default="unknown", min_length=1, max_length=256, description="Who cancels the job.")
    reason: Storable = Field(default="", max_length=2000, description="Why the job is cancelled.")


def router(runtime: Runtime, settings: OrchestratorSettings) -> APIRouter:
    """All routes under `/training`, and `/queue`."""
    api = APIRouter(prefix="/training", tags=["training"])
    jobs, answers, newest = JobQueries(runtime.reads), ResponseCache(), JobsAsked()
    job_events = JobEvents(runtime.notifications, JobPoller(runtime.reads))
    JobId = Annotated[Text, Path(description="The job's id."), AfterValidator(no_folder)]  # noqa: N806 (a type)

    async def find(job_id: JobId) -> JobRow:
        row = await jobs.find(job_id)
        if row is None:
            raise _unknown(job_id)
        return row

    RemovalCandidate = Annotated[JobRow, Depends(find)]  # noqa: N806 (a type)

    async def publish(event: Event, again: str) -> None:
        if reason := runtime.health.reason("log"):  # no service would read it
            raise Problem(503, "Unavailable", f"{reason}; {again}", headers=_RETRY)
        try:
            await runtime.publisher.publish(event)
        except BrokerAway as error:
            raise Problem(503, "Unavailable", f"{error}; {again}", headers=_RETRY) from error

    @api.post(
        "/start",
        status_code=202,
        summary="Start a job",
        response_model=JobView,
        openapi_extra=_BODY,
        responses=problems(409, 413, 415, 422, 503),
        max_body_size=REQUEST_BYTES,  # as much as over Kafka
    )
    async def start(
        request: Request,
        traceparent: Annotated[str | None, Header(description="W3C trace context.")] = None,
    ) -> Response:
        """Publishes the request to Kafka, as RelayCore does, and waits briefly for the decision.

        `job_id` is optional; a missing one is generated. The same request under the same id is the same job. 202 with
        status `requested` means that no decision arrived in time: read the address in `Location` later. 422 says why the
        request was refused; 409 says that another request has the id.
        """
        body = await request.body()
        data = await in_thread_if_large(len(body), job_requested, body)
        content = content_digest(data.request, data.faults)
        known, now = await jobs.find_now(data.job_id)
        if known is None or not _is(known, content):
            await in_thread_if_large(len(body), _refuse_invalid, data, now, settings.policy)
            if known is not None:
                raise _taken(known)
            event = outside_event(EDGE, data, correlation_id=data.job_id, traceparent=traceparent, subject=data.job_id)
            with watching(runtime.notifications, jobs, data.job_id) as watch:
                await publish(event, f"send it again with job_id {data.job_id!r}, which has no effect if it did arrive")
                known = await watch.until(lambda row: row.status != "requested", settings.decision_wait_seconds)
        if known is None:
            return _answer(undecided_view(data.job_id, data.request))
        if not _is(known, content):
            raise _taken(known)
        if known.state.rejected:
            raise _rejected("The job was rejected", known.state.rejected.reasons)
        return _answer(job_view(known))

    @api.get(
        "",
        summary="List jobs, the newest first",
        response_model=JobPage,
        openapi_extra=query_parameters(JobsAsked),
        responses=problems(422),
    )
    async def listed(request: Request) -> Response:
        """A job is on one page only, also when jobs are added meanwhile."""
        return page_answer(*await jobs.page(parse_query(request, newest)))

    @api.get(
        "/{job_id}",
        summary="Show a job with its steps, its request and its policy",
        response_model=JobDetail,
        responses=problems(404),
    )
    async def shown(job_id: JobId) -> Response:
        """Returns everything that the orchestrator knows of the job."""
        stored = await jobs.stored(job_id)
        if stored is None:
            raise _unknown(job_id)
        return await answers.of(stored_detail, stored, size_of(stored.state))

    @api.get(
        "/{job_id}/progress", summary="Show the progress of a job", response_model=JobProgress, responses=problems(404)
    )
    async def progress(job_id: JobId) -> Response:
        """Returns the latest numbers of each step's latest attempt; whole curves are files in the steps' artifacts."""
        stored = await jobs.progress(job_id)
        if stored is None:
            raise _unknown(job_id)
        return await answers.of(stored_progress, stored, size_of(stored.job.state, *stored.data))

    @api.get(
        "/{job_id}/events",
        summary="Watch a job (server-sent events)",
        response_class=Response,
        responses={200: dict(DOCUMENTED), **problems(404, 503)},
    )
    async def events(
        job_id: JobId,
        last_event_id: Annotated[str | None, Header(description="Id of the last `job` event that was received.")] = None,
    ) -> EventStream:
        """`job` is the job as `JobView`, sent at once and after each change. `progress` is one step as `StepProgress`.
        `end` means: close the stream.

        With Last-Event-ID the first `job` is sent only if it differs from that one. A slow listener gets the state at the
        time when it can read, without the changes between. A comment is sent at least every 15 seconds.
        """
        listener = await job_events.listen(job_id, last_event_id)
        if listener is None:
            raise _unknown(job_id)
        return EventStream(listener)

    add_reports(api, find, settings)

    @api.post("/{job_id}/cancel", status_code=202, summary="Cancel a job", responses=problems(404, 409, 503))
    async def cancel(job: RemovalCandidate, asked: CancelRequest | None = None) -> JobView:
        """Publishes the cancellation and waits briefly until it is read.

        Running steps write a checkpoint and stop; completed steps stay.
        """
        if job.status in ENDED:
            raise Problem(409, "The job has ended", f"job {job.job_id!r} is {job.status}; there is nothing left to cancel")
        if job.state.cancel is None:
            asked = asked or CancelRequest()
            data = JobCancelRequested(job_id=job.job_id, requester=asked.requester, reason=asked.reason)
            event = outside_event(
                EDGE, data, correlation_id=job.job_id, traceparent=job.state.traceparent, subject=job.job_id
            )
            with watching(runtime.notifications, jobs, job.job_id) as watch:
                await publish(event, "cancel again")
                job = await watch.until(lambda row: row.state.cancel is not None, settings.decision_wait_seconds) or job
        return job_view(job)

    add_controls(api, RemovalCandidate, publish, jobs, runtime.notifications, settings.decision_wait_seconds)
    return APIRouter(routes=[*api.routes, *queue_router(runtime.reads).routes])  # nested, their limits would be unknown


def _address(job_id: str) -> str:
    return f"{API}/training/{quote(job_id, safe='')}"


def _answer(job: JobView) -> Response:
    return Response(job.model_dump_json(), 202, {"Location": _address(job.job_id)}, JSON)


def _unknown(job_id: str) -> Problem:
    return Problem(404, "Not found", f"no job {job_id!r} was requested; GET {API}/training lists those that were")


def _is(known: JobRow, content: str) -> bool:
    return known.state.content == content


def _refuse_invalid(data: JobRequested, now: datetime, policy: Policy) -> None:
    examined = examine(data.request, data.faults, now, policy)
    if isinstance(examined, RejectedRequest):
        raise _rejected("The request is not valid", examined.reasons)


def _rejected(title: str, reasons: Sequence[Reason]) -> Problem:
    return Problem.of(422, title, reasons)


def _taken(known: JobRow) -> Problem:
    detail = (
        f"job {known.job_id!r} was requested before with another content and is {known.status}; "
        "send this request under a new job_id, or leave job_id out"
    )
    return Problem(409, "The job id is used already", detail, headers={"Location": _address(known.job_id)})
