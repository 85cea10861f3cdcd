"""Serves the report that a step left when it completed or failed, from the artifact store, in a page that may load and run nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from fastapi.responses import HTMLResponse
from pydantic import AfterValidator

from schemas.artifacts import ArtifactRef
from schemas.results import REPORT
from services.chassis.executor.folders import cache_of
from services.chassis.reports.reported import FILE
from services.chassis.serving.problem import Problem, problems
from services.chassis.serving.web.parameters import Text, no_folder
from services.chassis.storage.artifacts.errors import ArtifactCorrupt, StoreAway
from services.chassis.storage.artifacts.store import ArtifactStore
from services.orchestrator.queries import JobRow
from services.orchestrator.settings import OrchestratorSettings

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def add_reports(api: APIRouter, find: Callable[..., Awaitable[JobRow]], settings: OrchestratorSettings) -> None:
    """Add the route of reports; `find` returns the job of a path, or refuses."""

    @api.get(
        "/{job_id}/steps/{step}/report",
        summary="Show the report of a step that has completed or failed (HTML)",
        response_class=HTMLResponse,
        responses=problems(404, 503),
    )
    async def report(
        job: Annotated[JobRow, Depends(find)],
        step: Annotated[Text, Path(description="The step's name."), AfterValidator(no_folder)],
    ) -> Response:
        """Results with their intervals, or what went wrong; rows left out, curves, memory, samples and the configuration, in one file."""
        text = await asyncio.to_thread(_read, _report_of(job, step), settings)
        return HTMLResponse(text, headers=_HEADERS)


def _report_of(job: JobRow, step: str) -> ArtifactRef:
    plan = job.state.accepted.plan if job.state.accepted else ()
    if step not in {planned.name for planned in plan}:
        names = ", ".join(planned.name for planned in plan) or "none yet"
        raise Problem(404, "Not found", f"job {job.job_id!r} has no step {step!r}; its steps: {names}")
    result = job.state.result(step)
    if result is None:
        if failed := job.state.failure_report(step):
            return failed
        what = "has not completed, and no attempt at it has left a report: one that fails does, unless its worker was lost"
        raise Problem(404, "Not found", f"step {step!r} of job {job.job_id!r} {what}")
    if REPORT not in result.outputs:
        why = result.facts.get(REPORT, "steps that register a model, and steps of earlier releases, leave none")
        raise Problem(404, "Not found", f"step {step!r} of job {job.job_id!r} has no report: {why}")
    return result.outputs[REPORT]


def _read(ref: ArtifactRef, settings: OrchestratorSettings) -> bytes:
    try:
        folder = ArtifactStore(settings.artifacts_uri).fetch_remaining(ref, cache_of(settings.home))
    except StoreAway as error:
        raise Problem(503, "Unavailable", str(error)) from error
    except ArtifactCorrupt as error:
        raise Problem(404, "Not found", str(error)) from error
    return (folder / FILE).read_bytes()
