"""Whether a database can carry a service: its version, its encoding, and sessions that are the service's own.

Advisory locks, LISTEN, settings such as search_path and prepared statements belong to a session. A pooler that gives each
transaction to another one (PgBouncer's transaction mode) breaks all four, most of them in silence.
"""

from typing import NamedTuple

from services.chassis.postgres.urls import Connection, Database

LEAST_VERSION = 14
"""The first with idle_session_timeout, by which the lock of a frozen process ends."""
ANSWER_SECONDS = 10.0
_ENCODING = "UTF8"
_STRANGERS = 4
"""So many other sessions look for the one that ought to be ours: a pooler hands out the one that was used last, or in turn."""
_FACTS = (
    "SELECT current_setting('server_version_num')::int / 10000 AS version, current_setting('server_encoding') AS encoding"
)


class DatabaseRefused(Exception):
    """The service does not start on this database; the message says why and what to do. Waiting does not help."""


class Unsuitable(DatabaseRefused):
    """The database cannot carry a service as it is; the message says why and what to do."""


class Facts(NamedTuple):
    """What a database says of itself."""

    version: int
    encoding: str
    pooled: bool
    """Whether something between us and the server answers in its name."""


async def examine(database: Database) -> Facts:
    """What the database is. Raises Unsuitable, and the errors of the way there and of the server."""
    connection = await database.connect(command_timeout=ANSWER_SECONDS, statement_cache_size=0)
    try:
        async with connection.transaction():
            version, encoding = await connection.fetchrow(_FACTS) or (0, "")
        facts = Facts(version, encoding, await _is_pooled(database, connection))
    finally:
        connection.terminate()
    if reason := refusal(str(database), facts):
        raise Unsuitable(reason)
    return facts


async def require_sessions(database: Database) -> None:
    """Raises Unsuitable where sessions of the database are not our own, and the errors of the way there and of the server."""
    connection = await database.connect(command_timeout=ANSWER_SECONDS, statement_cache_size=0)
    try:
        await _is_pooled(database, connection)
    finally:
        connection.terminate()


def refusal(place: str, facts: Facts) -> str | None:
    """Why a database that is so is refused; None where it is not."""
    if facts.version < LEAST_VERSION:
        return f"{place} is PostgreSQL {facts.version}; {LEAST_VERSION} or later is needed: upgrade the server"
    if facts.encoding != _ENCODING:
        return (
            f"{place} has the encoding {facts.encoding}, which cannot hold every text: {_ENCODING} is needed. Create it anew with "
            f"ENCODING '{_ENCODING}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C', or dump it and restore it into such a one"
        )
    return None


async def _is_pooled(database: Database, ours: Connection) -> bool:
    """Whether something answers in the server's name. Raises Unsuitable where it shares sessions out.

    A pooler makes up the process id that it reports to a client; the server tells the true one to whoever asks.
    """
    backend = await _backend(ours)
    if backend == ours.get_server_pid():
        return False
    if await _shared(database, ours, backend):
        raise Unsuitable(
            f"the pooler before {database} gives each transaction another session; services need sessions of their own, for "
            "LISTEN, advisory locks, search_path and prepared statements: set pool_mode=session, or name the server itself"
        )
    return True


async def _backend(connection: Connection) -> int:
    async with connection.transaction():
        return int(await connection.fetchval("SELECT pg_backend_pid()"))


async def _shared(database: Database, ours: Connection, backend: int) -> bool:
    """Whether a session is given the backend that is ours, while we are still there, or we are given another one."""
    others: list[Connection] = []
    try:
        for _ in range(_STRANGERS):
            other = await database.connect(command_timeout=ANSWER_SECONDS, statement_cache_size=0)
            others.append(other)
            await other.execute("BEGIN")
            if await other.fetchval("SELECT pg_backend_pid()") == backend or await _backend(ours) != backend:
                return True
        return False
    finally:
        for other in others:
            other.terminate()
