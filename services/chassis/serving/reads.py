"""Reads rows for HTTP routes: one statement and one round trip each, on sessions of a separate pool, without transactions.

SQLAlchemy's engine costs such a read four round trips (ping, begin, the statement, roll back) and several times the
statement's own processor time. Here a dead session is replaced and the statement sent again, since it changed nothing.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

import asyncpg

from services.chassis.kernel.tables import OPERATIONAL, PROJECTION
from services.chassis.postgres.closing import close
from services.chassis.postgres.urls import STATEMENT_SECONDS, Connection, parse
from services.chassis.process.transient import is_transient

_SESSIONS = 8
_PATIENCE_SECONDS = 10.0
_SESSION = {
    "search_path": f"{PROJECTION},{OPERATIONAL}", "TimeZone": "UTC", "default_transaction_read_only": "on",
    "plan_cache_mode": "force_generic_plan",  # plans do not depend on the arguments, and planning costs more than a page
}  # fmt: skip

Rows: TypeAlias = Sequence["asyncpg.Record"]


class Reads:
    """At most `sessions` sessions of one service's database, opened when they are needed."""

    def __init__(self, url: str, *, statement_seconds: float = STATEMENT_SECONDS, sessions: int = _SESSIONS) -> None:
        self._database, self._seconds = parse(url), statement_seconds
        self._idle: list[Connection] = []
        self._renewals = 0
        self._places = asyncio.Semaphore(sessions)

    async def rows(self, statement: str, *arguments: Any) -> Rows:
        """Return the statement's rows.

        Raises the errors of database and connection, TimeoutError if all sessions are busy.
        """
        if self._places.locked():
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._places.acquire()
        else:
            await self._places.acquire()
        try:
            return await self._rows(statement, arguments)
        finally:
            self._places.release()

    async def row(self, statement: str, *arguments: Any) -> "asyncpg.Record | None":
        """Return the first row of the statement, if any."""
        found = await self.rows(statement, *arguments)
        return found[0] if found else None

    def close(self) -> None:
        """Close all sessions, busy ones as soon as they have read; a later read opens new ones."""
        self._renewals += 1
        while self._idle:
            self._idle.pop().terminate()

    async def _rows(self, statement: str, arguments: Sequence[Any]) -> Rows:
        if self._idle:
            try:
                return await self._read(self._idle.pop(), statement, arguments)
            except Exception as error:
                if isinstance(error, (TimeoutError, asyncpg.QueryCanceledError)) or not is_transient(error):
                    raise
                self.close()  # the other idle sessions may be dead, too
        connection = await self._database.connect(_SESSION, command_timeout=self._seconds)
        return await self._read(connection, statement, arguments)

    async def _read(self, connection: Connection, statement: str, arguments: Sequence[Any]) -> Rows:
        renewals, whole = self._renewals, False
        try:
            rows: Rows = await connection.fetch(statement, *arguments)
            whole = True
        except asyncpg.PostgresError as error:
            whole = not is_transient(error)
            raise
        finally:
            if whole and renewals == self._renewals:
                self._idle.append(connection)
            else:
                await close(connection)
        return rows
