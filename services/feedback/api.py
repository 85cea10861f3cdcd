"""Serves the judges' results for a job over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from schemas.jobs import StepFault, StepResult
from services.chassis.executor.attempts import AttemptState
from services.chassis.serving.http import API
from services.chassis.serving.problem import Problem, problems
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.web.parameters import NameInPath
from services.feedback.queries import attempts_of


class FeedbackView(BaseModel):
    """One attempt at a label or score step."""

    step: str
    attempt: int
    kind: str = Field(description="label, score or compare.")
    status: str | None = Field(description="queued, running, cancelling, completed, failed or cancelled.")
    result: StepResult | None = Field(description="Result of a completed attempt: artifact, metrics and judge.")
    fault: StepFault | None = Field(description="Fault of a failed attempt.")


def router(runtime: Runtime) -> APIRouter:
    """All routes under `/feedback`."""
    api = APIRouter(prefix="/feedback", tags=["feedback"])

    @api.get("/{job_id}", summary="Show the feedback of judges for a job", responses=problems(404))
    async def shown(
        job_id: Annotated[NameInPath, Path(description="The job's id.")],
    ) -> list[FeedbackView]:
        """Returns every attempt at the job's label, score and compare steps, the earliest first."""
        attempts = await attempts_of(runtime.engine, job_id)
        if not attempts:
            raise Problem(
                404,
                "Not found",
                f"no feedback was requested for job {job_id!r}; GET {API}/training/{job_id} shows its steps",
            )
        return [view for attempt in attempts if (view := _view(attempt))]

    return api


def _view(attempt: AttemptState) -> FeedbackView | None:
    asked = attempt.requested
    if asked is None:
        return None
    return FeedbackView(
        step=asked.step,
        attempt=asked.attempt,
        kind=asked.kind,
        status=attempt.status,
        result=attempt.result,
        fault=attempt.fault,
    )
