"""Runs the transactions of batches on asyncpg alone, since SQLAlchemy's engine costs each of them a millisecond of processor time.

`Session` is all that code inside such a transaction may use; SQLAlchemy's connections have it too, so the same code runs in both.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import asyncpg
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from services.chassis.postgres.closing import close
from services.chassis.postgres.urls import Connection, parse
from services.chassis.process.transient import described, is_transient

Values = Mapping[str, Any]


class Session(Protocol):
    """An open transaction."""

    async def execute(
        self, statement: TextClause, values: Values | Sequence[Values] | None = None, /
    ) -> Iterable[Sequence[Any]]:
        """Execute the statement, once for each of several `values`, and return its rows if there is one. Raises the database's errors."""


class Transactional(Protocol):
    """What opens transactions: `Transactions`, or an engine of SQLAlchemy."""

    def begin(self) -> AbstractAsyncContextManager[Session]:
        """Return a transaction that is committed when the block ends, and rolled back if the block raises."""


class RolledBack(Exception):
    """The server rolled a transaction back that was to be committed: a statement of it had failed, and the block went on."""


def unanswered(error: BaseException, seconds: float) -> TimeoutError | None:
    """Return the error of a statement that took too long in words, since asyncpg's own has no text; None for any other error."""
    if not isinstance(error, TimeoutError) or str(error):
        return None
    return TimeoutError(
        f"PostgreSQL did not answer a statement within {seconds:g} s: it hangs, the network does, or another session holds a "
        "lock (see pg_locks)"
    )


class Transactions:
    """Transactions one after another, on a session that is opened when it is needed.

    A session is used again only after its transaction has ended for certain. After an error that may be the session's own, after a
    time-out and after cancellation it is closed, so that no transaction stays open. Transactions at the same time each have a session.
    """

    def __init__(self, url: str, settings: Mapping[str, str], *, statement_seconds: float) -> None:
        self._database, self._settings, self._seconds = parse(url), settings, statement_seconds
        self._idle: Connection | None = None
        self._closed = False

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Session]:
        """Yield a transaction that is committed when the block ends, and rolled back if the block raises.

        Raises the errors of connection and database, and RolledBack.
        """
        connection = await self._take()
        ended = False
        try:
            await connection.execute("BEGIN")
            try:
                yield _Session(connection)
            except Exception as error:
                ended = not is_transient(error) and await _rolled_back(connection)
                if worded := unanswered(error, self._seconds):
                    raise worded from error
                raise
            done = await connection.execute("COMMIT")
            ended = True
            if done != "COMMIT":
                raise RolledBack("PostgreSQL answered COMMIT with ROLLBACK: a statement of the transaction had failed")
        finally:
            if ended and self._idle is None and not self._closed:
                self._idle = connection
            else:
                await close(connection)

    async def close(self) -> None:
        """Close the idle session; a session in use is closed when its transaction has ended."""
        self._closed = True
        if self._idle is not None:
            idle, self._idle = self._idle, None
            await close(idle)

    async def _take(self) -> Connection:
        connection, self._idle = self._idle, None
        if connection is not None and not connection.is_closed():
            return connection
        try:
            return await self._database.connect(self._settings, command_timeout=self._seconds)
        except asyncpg.PostgresError as error:  # no record causes it, so it must not look like a fault of a record
            raise ConnectionError(f"{self._database} opens no session: {described(error)}") from error


class _Session(NamedTuple):
    connection: Connection

    async def execute(
        self, statement: TextClause, values: Values | Sequence[Values] | None = None, /
    ) -> Iterable[Sequence[Any]]:
        sql, names = _prepared(statement)
        if values is None or isinstance(values, Mapping):
            given = values or {}
            rows: Sequence[Any] = await self.connection.fetch(sql, *(given[name] for name in names))
            return rows
        await self.connection.executemany(sql, [[one[name] for name in names] for one in values])
        return ()


@lru_cache(maxsize=256)
def _prepared(statement: TextClause) -> tuple[str, Sequence[str]]:
    """Return the statement with numbered parameters, as SQLAlchemy sends it, and their names in order."""
    compiled = statement.compile(dialect=_DIALECT)
    return str(compiled), compiled.positiontup or ()


async def _rolled_back(connection: Connection) -> bool:
    try:
        await connection.execute("ROLLBACK")
    except Exception:  # the session is closed, which rolls back, too
        return False
    return True


_DIALECT = PGDialect_asyncpg()  # type: ignore[no-untyped-call]
