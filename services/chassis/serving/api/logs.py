"""Serves the logs of an executor's attempts, as long as their files are on this machine."""

import asyncio
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import AfterValidator, BaseModel, Field

from services.chassis.executor.folders import log_of
from services.chassis.executor.log_reading import read_lines
from services.chassis.serving.problem import Problem, problems
from services.chassis.serving.web.parameters import Text, no_folder


class LogPart(BaseModel):
    """Some lines of one attempt's log."""

    service: str = Field(description="The executor that has the log.")
    lines: tuple[str, ...] = Field(
        description="Whole lines, oldest first, without secrets and control characters; of a line that was rewritten its last state."
    )
    next: int = Field(description="`after` for the lines that follow.")


def log_router(home: FilePath, service: str) -> APIRouter:
    """Routes under `/logs/<service>`; `home` is the service's folder."""
    router = APIRouter(prefix=f"/logs/{service}", tags=["logs"])
    Segment = Annotated[Text, AfterValidator(no_folder)]  # noqa: N806 (a type)

    @router.get("/{job_id}/{step}/{attempt}", summary="Show the log of an attempt", responses=problems(404))
    async def log(
        job_id: Annotated[Segment, Path(description="The job's id.")],
        step: Annotated[Segment, Path(description="The step's name.")],
        attempt: Annotated[int, Path(ge=1, le=1_000_000, description="Number of the attempt, from 1.")],
        after: Annotated[
            int | None,
            Query(
                ge=0,
                le=2**53,
                description="Bytes of the log to pass over: `next` of the previous part; null: the last lines.",
            ),
        ] = None,
    ) -> LogPart:
        """What the attempt's process wrote to standard output and error; libraries may print parts of the data there."""
        file = log_of(home, service, job_id, step, attempt)
        found = await asyncio.to_thread(read_lines, file, after)
        if found is None:
            detail = (
                f"this {service} has no log of attempt {attempt} of step {step!r} of job {job_id!r}: it was not started on this "
                "machine, or its log was removed by the retention policy"
            )
            raise Problem(404, "Not found", detail)
        return LogPart(service=service, lines=found.lines, next=found.next)

    return router
