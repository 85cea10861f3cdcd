"""Answers over HTTP from the tally's own table."""

from fastapi import APIRouter

from examples.tally import statements
from examples.tally.domain import Tally
from services.chassis.serving.problem import Problem, ProblemDocument
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.web.parameters import NameInPath


def router(runtime: Runtime) -> APIRouter:
    """All routes under `/tallies`."""
    api = APIRouter(prefix="/tallies", tags=["tallies"])

    @api.get("/{job_id}", summary="Show how often a job was requested", responses={404: {"model": ProblemDocument}})
    async def show(job_id: NameInPath) -> Tally:
        row = await runtime.reads.row(statements.TALLY, job_id)
        if row is None:
            raise Problem(
                404, "Not found", f"no job {job_id!r} was requested; ask for one with `python -m examples.tally.ask`"
            )
        return Tally.stored(row[0])

    return api
