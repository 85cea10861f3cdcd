"""What one process of a service does alone: it holds an advisory lock on a session that ends when the process stands still.

A process that is frozen (SIGSTOP, a paused container, a suspended machine) keeps its connections, since its kernel answers for
it. So the server ends this session when it says nothing for a while, and a heartbeat says something more often. Whoever lost
the session finds out with its next statement, and has changed nothing on it meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import CursorResult, Executable, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.chassis.process.transient import ReadsOnly

IDLE_SECONDS = 6
"""The server ends a session that said nothing for so long, unless it was given more time."""
BEAT_SECONDS = 1.0
_ANSWER_SECONDS = 10.0
"""A statement that is not answered for so long ends the session: the server hangs, or the way to it."""

_SETTINGS = text(
    """SELECT set_config('idle_session_timeout', :idle, false),
               set_config('tcp_user_timeout', :idle, false), -- rows that the other side does not take
               set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false),
               set_config('tcp_keepalives_count', '3', false)"""
)
_TAKE = text("SELECT pg_try_advisory_lock(:lock)")
READS_ONLY = text("SELECT current_setting('transaction_read_only') = 'on'")
"""Whether a session may only read."""


@dataclass
class Exclusive:
    """A session of one's own, one statement at a time."""

    connection: AsyncConnection
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _lost: Exception | None = None
    _spoke_at: float = 0.0

    async def take(self, lock: int) -> bool:
        """Take the lock, unless another session has it; it is held until this session ends."""
        return bool((await self.execute(_TAKE, {"lock": lock})).scalar())

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
        """Say something before the server ends the session, until it is lost. A session that may only read is no use to anybody."""
        while self._lost is None:
            quiet = asyncio.get_running_loop().time() - self._spoke_at
            if quiet < BEAT_SECONDS:
                await asyncio.sleep(BEAT_SECONDS - quiet)
                continue
            try:
                if (await self.execute(READS_ONLY)).scalar():
                    self._lost = ReadsOnly()
            except Exception:  # noqa: S110 (kept for the next who executes)
                pass


@asynccontextmanager
async def exclusive(engine: AsyncEngine, idle_seconds: float = IDLE_SECONDS) -> AsyncIterator[Exclusive]:
    """A session with a heartbeat for the block; every lock taken on it goes with it, at the latest when nothing was heard of this
    process for `idle_seconds`. Raises the database's errors."""
    async with engine.connect() as pooled:
        session = Exclusive(await pooled.execution_options(isolation_level="AUTOCOMMIT"))
        beating: asyncio.Task[None] | None = None
        try:
            await session.execute(_SETTINGS, {"idle": f"{round(idle_seconds * 1000)}ms"})
            beating = asyncio.create_task(session.beat())
            yield session
        finally:
            if beating is not None:
                beating.cancel()
                await asyncio.wait([beating])
            await pooled.invalidate()
