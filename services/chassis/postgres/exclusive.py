"""Gives one process of a service exclusive work: an advisory lock on a session that ends if the process is frozen.

A frozen process (SIGSTOP, a paused container, a suspended machine) keeps its connections, since its kernel still answers.
So the server ends this session after some idle time, and a heartbeat sends a statement more often. A process that lost the
session learns it from its next statement, and has changed nothing through it meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import CursorResult, Executable
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.chassis.postgres import statements
from services.chassis.process.transient import ReadsOnly

IDLE_SECONDS = 6
"""The server ends a session that is idle for this long, unless it was given more time."""
BEAT_SECONDS = 1.0
_ANSWER_SECONDS = 10.0
"""A statement without a response for this long ends the session: the server or the network hangs."""


@dataclass
class Exclusive:
    """A session for exclusive use, which executes one statement at a time."""

    connection: AsyncConnection
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _lost: Exception | None = None
    _spoke_at: float = 0.0

    async def take(self, lock: int) -> bool:
        """Take the lock, unless another session has it; it is held until this session ends."""
        return bool((await self.execute(statements.TAKE_LOCK, {"lock": lock})).scalar())

    async def execute(self, statement: Executable, values: Mapping[str, Any] | None = None) -> CursorResult[Any]:
        """Execute one statement. Raises the database's errors and TimeoutError; after one of them the session is lost for good."""
        async with self._turn:
            if self._lost is not None:
                raise self._lost
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    result = await self.connection.execute(statement, values)
            except Exception as error:
                self._lost = error
                raise
            self._spoke_at = asyncio.get_running_loop().time()
            return result

    async def beat(self) -> None:
        """Send a heartbeat before the server ends the session, until it is lost. A read-only session counts as lost."""
        while self._lost is None:
            quiet = asyncio.get_running_loop().time() - self._spoke_at
            if quiet < BEAT_SECONDS:
                await asyncio.sleep(BEAT_SECONDS - quiet)
                continue
            try:
                if (await self.execute(statements.READS_ONLY)).scalar():
                    self._lost = ReadsOnly()
            except Exception:  # noqa: S110 (kept for the next who executes)
                pass


@asynccontextmanager
async def exclusive(engine: AsyncEngine, idle_seconds: float = IDLE_SECONDS) -> AsyncIterator[Exclusive]:
    """Yield a session with a heartbeat for the block; its locks end with it, at the latest after this process was silent
    for `idle_seconds`. Raises the database's errors."""
    async with engine.connect() as pooled:
        session = Exclusive(await pooled.execution_options(isolation_level="AUTOCOMMIT"))
        beating: asyncio.Task[None] | None = None
        try:
            await session.execute(statements.END_WHEN_SILENT, {"idle": f"{round(idle_seconds * 1000)}ms"})
            beating = asyncio.create_task(session.beat())
            yield session
        finally:
            if beating is not None:
                beating.cancel()
                await asyncio.wait([beating])
            await pooled.invalidate()
