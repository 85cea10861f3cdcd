"""Stores the progress and outcome of each verify, rebuild or restore, and lets one run at a time, by an advisory lock.

A process that is frozen for a minute loses the lock, and another run may begin. When the first process continues, it must not change
the other's tables: each of its transactions on a shadow or a projection ends with `Progress.require`, which checks that its run is
still open. A new run first stores that the earlier runs have ended and then drops the shadow, which waits for transactions that write
to it. So a transaction either finds that its run has ended, or commits to a shadow that is dropped afterwards.
"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.base import Frozen
from schemas.ids import new_id
from services.chassis.postgres.exclusive import Exclusive, exclusive
from services.chassis.postgres.locks import REPLAY_LOCK
from services.chassis.process.logging import get_logger
from services.chassis.process.transient import described
from services.chassis.replay import statements

_log = get_logger(__name__)
_IDLE_SECONDS = 60.0
"""How long a frozen process keeps the lock."""
_NOTE_SECONDS = 0.5

Kind = Literal["verify", "rebuild", "restore"]
RunState = Literal["running", "done", "failed", "cancelled"]


class Busy(Exception):
    """Another verify, rebuild or restore of the same service runs."""


class ReplayRun(Frozen):
    """One verify, rebuild or restore."""

    id: str
    kind: Kind
    state: RunState
    phase: str = Field(description="Its present or last phase: reading the log, comparing, swapping.")
    done: int = Field(description="Number of records folded so far.")
    total: int = Field(description="Number of records to fold, as known now.")
    started_at: datetime
    ended_at: datetime | None = None
    error: str | None = None
    result: dict[str, Any] | None = None


@dataclass
class Progress:
    """How far a run is; it is stored at most twice a second."""

    run_id: str
    session: Exclusive
    phase: str = "starting"
    done: int = 0
    total: int = 0
    _noted: float = field(default=0.0)

    async def note(self, *, force: bool = False) -> None:
        """Store the progress, if it is time to."""
        if force or time.monotonic() - self._noted >= _NOTE_SECONDS:
            self._noted = time.monotonic()
            await self.session.execute(
                statements.NOTE_PROGRESS, {"id": self.run_id, "phase": self.phase, "done": self.done, "total": self.total}
            )

    async def require(self, connection: AsyncConnection) -> None:
        """Check that the run is still open, at the end of each of its transactions. Raises Busy where another run began meanwhile."""
        if not await connection.scalar(statements.IS_RUNNING, {"id": self.run_id}):
            raise Busy("this process was frozen, and another verify or rebuild of this service began meanwhile")


class EngineOfRun(AsyncEngine):
    """An engine whose transactions commit only while their run is open."""

    def __init__(self, engine: AsyncEngine, progress: Progress) -> None:
        super().__init__(engine.sync_engine)
        self._progress = progress

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Like SQLAlchemy's. Raises Busy where another run began meanwhile."""
        async with super().begin() as connection:
            yield connection
            await self._progress.require(connection)


@asynccontextmanager
async def running(engine: AsyncEngine, kind: Kind) -> AsyncIterator[tuple[Progress, dict[str, Any]]]:
    """Hold the lock and store the state of a run; the dict that the block fills is its result. Raises Busy."""
    async with exclusive(engine, _IDLE_SECONDS) as session:
        if not await session.take(REPLAY_LOCK):
            raise Busy("another verify or rebuild of this service is running; wait for it, or stop it")
        run_id, result = new_id(), dict[str, Any]()
        await session.execute(statements.ABANDON_RUNS)
        await session.execute(statements.OPEN_RUN, {"id": run_id, "kind": kind})

        async def close(state: RunState, error: str | None = None) -> None:
            values = {"id": run_id, "state": state, "error": error, "result": json.dumps(result)}
            await session.execute(statements.CLOSE_RUN, values)

        try:
            yield Progress(run_id, session), result
        except BaseException as failure:
            try:
                if isinstance(failure, Exception):
                    await close("failed", described(failure, 2000))
                else:
                    await close("cancelled")
            except Exception as lost:  # the next run stores that this one ended
                _log.warning("the end of a run could not be stored", kind=kind, error=described(lost))
            raise
        await close("done")


async def last_runs(connection: AsyncConnection, limit: int = 5) -> list[ReplayRun]:
    """Return the newest runs first; one that is stored as running while nobody holds the lock was killed, and counts as
    failed."""
    held = await connection.scalar(statements.IS_LOCKED, {"lock": REPLAY_LOCK})
    found = []
    for row in (await connection.execute(statements.READ_RUNS, {"limit": limit})).mappings():
        values = dict(row)
        if values["state"] == "running" and not held:
            values |= {"state": "failed", "error": "its process ended before it did"}
        found.append(ReplayRun.model_validate(values))
    return found
