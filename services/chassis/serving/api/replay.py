"""Lets operators inspect, verify and rebuild a service's projection over HTTP, with the same code as the command line."""

from functools import partial

from fastapi import APIRouter
from pydantic import Field, StrictBool

from schemas.base import Frozen, Storable, Strict
from services.chassis.replay.background import Replay, Replays
from services.chassis.replay.checks import ReplayRefused
from services.chassis.replay.rebuild import drop_old, rebuild, verify
from services.chassis.replay.row import rebuild_row, row_ref
from services.chassis.replay.runs import Busy
from services.chassis.replay.status import ProjectionStatus, status
from services.chassis.serving.problem import Problem, problems


class ReplayRequest(Strict):
    """Options of a verify or rebuild."""

    accept_incomplete: StrictBool = Field(
        default=False, description="Continue although the log has lost its first records."
    )


class RebuildRequest(ReplayRequest):
    """Options of a rebuild of a whole projection or of one row."""

    key: Storable | None = Field(
        default=None, min_length=1, max_length=2000, description="Only the row of this key, such as a job's id."
    )
    table: Storable | None = Field(
        default=None, max_length=128, description="Table of that row; optional if the projection has only one."
    )


class Dropped(Frozen):
    """Names of the removed versions."""

    old_versions: tuple[str, ...]


def projection_router(replays: Replays) -> APIRouter:
    """Routes under `/projections/<service>`."""
    projection, service = replays.projection, replays.projection.service
    refusals = problems(409)
    router = APIRouter(prefix=f"/projections/{service}", tags=["projections"])

    async def begin(replay: Replay) -> ProjectionStatus:
        try:
            await replays.start(replay)
        except (Busy, ReplayRefused) as refusal:
            raise Problem(409, "Not now", str(refusal)) from refusal
        return await status(projection)

    @router.get("", summary=f"Show how far the projection of {service} has read the log, and its last replay")
    async def show() -> ProjectionStatus:
        return await status(projection)

    @router.post("/verify", status_code=202, responses=refusals, summary="Compare the projection with the log, row by row")
    async def start_verify(request: ReplayRequest | None = None) -> ProjectionStatus:
        wanted = request or ReplayRequest()
        return await begin(partial(verify, accept_incomplete=wanted.accept_incomplete))

    @router.post(
        "/rebuild", status_code=202, responses=refusals, summary="Rebuild the projection, or one row, from the log"
    )
    async def start_rebuild(request: RebuildRequest | None = None) -> ProjectionStatus:
        wanted = request or RebuildRequest()
        if wanted.key is None:
            return await begin(partial(rebuild, accept_incomplete=wanted.accept_incomplete))
        try:
            ref = row_ref(projection, wanted.key, wanted.table)
        except ReplayRefused as refusal:
            raise Problem(422, "The request is not valid", str(refusal)) from refusal
        return await begin(partial(rebuild_row, ref=ref, accept_incomplete=wanted.accept_incomplete))

    @router.post("/cancel", status_code=202, responses=refusals, summary="Cancel the replay that this process runs")
    async def cancel() -> ProjectionStatus:
        if not replays.cancel():
            raise Problem(409, "Nothing to cancel", f"no replay of {service} runs in this process")
        return await status(projection)

    @router.delete("/old-versions", summary="Remove the old versions that rebuilds left")
    async def drop() -> Dropped:
        return Dropped(old_versions=tuple(await drop_old(projection)))

    return router
