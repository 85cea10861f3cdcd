"""Why: what a verify or rebuild is doing and how the last ones ended, for whoever asks; one runs at a time by an advisory lock."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pydantic import Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.base import Frozen
from schemas.ids import new_id

_LOCK = 7_253_003
_NOTE_SECONDS = 0.5

Kind = Literal["verify", "rebuild", "restore"]
RunState = Literal["running", "done", "failed", "cancelled"]

_OPEN = text(
    """INSERT INTO replay (id, kind, state, phase, done, total) VALUES (:id, :kind, 'running', 'starting', 0, 0)"""
)
_ABANDON = text(
    """UPDATE replay SET state = 'failed', ended_at = now(), error = 'its process ended before it did' WHERE state = 'running'"""
)
_NOTE = text("UPDATE replay SET phase = :phase, done = :done, total = :total WHERE id = :id")
_CLOSE = text(
    """UPDATE replay SET state = :state, ended_at = now(), error = :error, result = CAST(:result AS jsonb) WHERE id = :id"""
)
_READ = text(
    """SELECT id, kind, state, phase, done, total, started_at, ended_at, error, result FROM replay
       ORDER BY started_at DESC LIMIT :limit"""
)
_TAKE = text("SELECT pg_try_advisory_lock(:lock)")
_HELD = text(
    """SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = :lock AND granted
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"""
)


class Busy(Exception):
    """Another verify or rebuild of the same service runs."""


class Run(Frozen):
    """One verify or rebuild."""

    id: str
    kind: Kind
    state: RunState
    phase: str = Field(description="What it does now, or did last: reading the log, comparing, swapping.")
    done: int = Field(description="Records that are folded.")
    total: int = Field(description="Records to fold, as known now.")
    started_at: datetime
    ended_at: datetime | None = None
    error: str | None = None
    result: dict[str, Any] | None = None


@dataclass
class Progress:
    """How far a run is; written down at most twice a second."""

    run_id: str
    connection: AsyncConnection
    phase: str = "starting"
    done: int = 0
    total: int = 0
    _noted: float = field(default=0.0)

    async def note(self, *, force: bool = False) -> None:
        """Write it down, if it is time to."""
        if force or time.monotonic() - self._noted >= _NOTE_SECONDS:
            self._noted = time.monotonic()
            await self.connection.execute(
                _NOTE, {"id": self.run_id, "phase": self.phase, "done": self.done, "total": self.total}
            )


@asynccontextmanager
async def running(engine: AsyncEngine, kind: Kind) -> AsyncIterator[tuple[Progress, dict[str, Any]]]:
    """Hold the lock and keep the record of a run; what the block puts into the dict is its result. Raises Busy."""
    async with engine.connect() as pooled:
        connection = await pooled.execution_options(isolation_level="AUTOCOMMIT")
        if not await connection.scalar(_TAKE, {"lock": _LOCK}):
            raise Busy("another verify or rebuild of this service runs; wait for it, or stop it")
        run_id, result = new_id(), dict[str, Any]()
        try:
            await connection.execute(_ABANDON)
            await connection.execute(_OPEN, {"id": run_id, "kind": kind})
            state, error = "done", None
            try:
                yield Progress(run_id, connection), result
            except Exception as failure:
                state, error = "failed", f"{type(failure).__name__}: {failure}"[:2000]
                raise
            except BaseException:
                state = "cancelled"
                raise
            finally:
                values = {"id": run_id, "state": state, "error": error, "result": json.dumps(result)}
                await connection.execute(_CLOSE, values)
        finally:
            await pooled.invalidate()  # the lock goes with the session


async def last_runs(connection: AsyncConnection, limit: int = 5) -> list[Run]:
    """The newest runs first; one that says it runs while nobody holds the lock was killed."""
    held = await connection.scalar(_HELD, {"lock": _LOCK})
    found = []
    for row in (await connection.execute(_READ, {"limit": limit})).mappings():
        values = dict(row)
        if values["state"] == "running" and not held:
            values |= {"state": "failed", "error": "its process ended before it did"}
        found.append(Run.model_validate(values))
    return found
