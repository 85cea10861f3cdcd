"""Routes of the queue: who waits for a worker, in which order, and the expected start."""

from datetime import UTC
from typing import Annotated

from fastapi import APIRouter, Query

from services.chassis.serving.problem import problems
from services.chassis.serving.reads import Reads
from services.orchestrator import statements
from services.orchestrator.queue import Duration, Durations, OpenAttempt
from services.orchestrator.queue_view import QueueView, queue_view

_MEASURED_JOBS = 50
"""Durations are those of the steps of this many completed and this many running jobs, the newest."""


def queue_router(reads: Reads) -> APIRouter:
    """The route `/queue`."""
    api = APIRouter(tags=["training"])

    @api.get("/queue", summary="Show who waits for a worker, in which order", responses=problems(422))
    async def queue(
        limit: Annotated[int, Query(ge=1, le=1000, description="The most attempts of each executor in a list.")] = 200,
    ) -> QueueView:
        """Each executor has a queue: by priority, then requesters take turns, then the older attempt comes first.

        The expected start follows from measured durations; where nothing was measured it is null, with the reason.
        """
        now = await reads.row(statements.NOW)
        assert now is not None
        attempts = [OpenAttempt(**dict(row)) for row in await reads.rows(statements.OPEN_ATTEMPTS)]
        measured = await reads.rows(statements.DURATIONS, _MEASURED_JOBS) if attempts else ()
        return queue_view(attempts, Durations(Duration(*row) for row in measured), now[0].astimezone(UTC), limit)

    return api
