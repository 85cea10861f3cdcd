"""Checks whether a database can serve a service: its version, its encoding, and sessions that are not shared.

Advisory locks, LISTEN, settings such as search_path and prepared statements belong to a session. A pooler that may run each
transaction on a different session (PgBouncer's transaction mode) breaks all four, most of them without an error.
"""

from typing import NamedTuple

from services.chassis.postgres import statements
from services.chassis.postgres.urls import Connection, Database

LEAST_VERSION = 14
"""The first version with idle_session_timeout, which ends the lock of a frozen process."""
ANSWER_SECONDS = 10.0
_ENCODING = "UTF8"
_OTHER_SESSIONS = 4
"""Number of other sessions that check whether they share ours: a pooler assigns the last used backend, or each in turn."""


class DatabaseRefused(Exception):
    """The service does not start on this database; the message has the reason and the remedy. Waiting does not help."""


class Unsuitable(DatabaseRefused):
    """A service cannot use the database; the message has the reason and the remedy."""


class Facts(NamedTuple):
    """What a database reports about itself."""

    version: int
    encoding: str
    pooled: bool
    """Whether a pooler answers in the server's place."""


async def examine(database: Database) -> Facts:
    """Return the database's facts. Raises Unsuitable, and the errors of the connection and of the server."""
    connection = await database.connect(command_timeout=ANSWER_SECONDS, statement_cache_size=0)
    try:
        async with connection.transaction():
            version, encoding = await connection.fetchrow(statements.FACTS) or (0, "")
        facts = Facts(version, encoding, await _is_pooled(database, connection))
    finally:
        connection.terminate()
    if reason := refusal(str(database), facts):
        raise Unsuitable(reason)
    return facts


async def require_sessions(database: Database) -> None:
    """Raise Unsuitable if sessions of the database are shared.

    Also raises the errors of the connection and of the server.
    """
    connection = await database.connect(command_timeout=ANSWER_SECONDS, statement_cache_size=0)
    try:
        await _is_pooled(database, connection)
    finally:
        connection.terminate()


def refusal(database: str, facts: Facts) -> str | None:
    """Return why a database with these facts is refused; None if it is not."""
    if facts.version < LEAST_VERSION:
        return f"{database} is PostgreSQL {facts.version}; {LEAST_VERSION} or later is needed: upgrade the server"
    if facts.encoding != _ENCODING:
        return (
            f"{database} has the encoding {facts.encoding}, which cannot hold every text: {_ENCODING} is needed. Create "
            f"it again with ENCODING '{_ENCODING}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C', or dump it and restore "
            "it into such a one"
        )
    return None


async def _is_pooled(database: Database, ours: Connection) -> bool:
    """Return whether a pooler answers in the server's place. Raises Unsuitable if it shares sessions.

    A pooler invents the process id that it reports to a client; a query to the server returns the true one.
    """
    backend = await _backend(ours)
    if backend == ours.get_server_pid():
        return False
    if await _shared(database, ours, backend):
        raise Unsuitable(
            f"the pooler before {database} gives each transaction another session; services need their own sessions, for "
            "LISTEN, advisory locks, search_path and prepared statements: set pool_mode=session, or name the server itself"
        )
    return True


async def _backend(connection: Connection) -> int:
    async with connection.transaction():
        return int(await connection.fetchval(statements.BACKEND))


async def _shared(database: Database, ours: Connection, backend: int) -> bool:
    """Return whether another session gets our backend while our session is open, or our session gets a different one."""
    others: list[Connection] = []
    try:
        for _ in range(_OTHER_SESSIONS):
            other = await database.connect(command_timeout=ANSWER_SECONDS, statement_cache_size=0)
            others.append(other)
            await other.execute("BEGIN")  # it stays open, so that no other session gets its backend meanwhile
            if await other.fetchval(statements.BACKEND) == backend or await _backend(ours) != backend:
                return True
        return False
    finally:
        for other in others:
            other.terminate()
