"""Finds a service's own database, creates it if it is missing, and refuses one that cannot serve a service.

A role that may use only its own database is sufficient if that database exists already.
"""

import re
from collections.abc import Sequence
from contextlib import suppress

import asyncpg

from services.chassis.migrations import statements
from services.chassis.postgres.requirements import ANSWER_SECONDS, DatabaseRefused, Facts, examine, require_sessions
from services.chassis.postgres.urls import Database, name_of, parse, with_name
from services.chassis.process.transient import described
from services.chassis.settings import ServiceSettings

_MISSING = re.compile("does not exist|no such database")


class NoDatabase(DatabaseRefused):
    """The service's database does not exist and cannot be created; the message says what is needed."""


async def create_database(settings: ServiceSettings, service: str) -> Database:
    """Return the service's database; create it if it is missing and the role may.

    Raises Unsuitable, NoDatabase and its errors.
    """
    database = parse(settings.database_url_for(service))
    if await _facts(settings, service) is None:
        await _create(database, await _creator(settings, service))
        await examine(database)
    return database


async def look(settings: ServiceSettings, service: str) -> Facts | None:
    """Return the facts of the service's database; None if it is missing and the first start creates it. Changes nothing.

    Raises Unsuitable, NoDatabase and its errors.
    """
    facts = await _facts(settings, service)
    if facts is None:
        await _creator(settings, service)
    return facts


async def _facts(settings: ServiceSettings, service: str) -> Facts | None:
    """Return the facts of the database; None if it is missing."""
    database = parse(settings.database_url_for(service))
    try:
        return await examine(database)
    except asyncpg.PostgresError as error:
        if not _says_missing(error):
            raise
        return None
    except TimeoutError:  # a pooler may not answer for a database that its server does not have
        if await _is_absent(database, _maintenance(settings, service)):
            return None
        raise


async def _is_absent(database: Database, through: Sequence[Database]) -> bool:
    """Return whether the server itself reports that the database is missing; False if it cannot be asked."""
    for maintenance in through:
        with suppress(OSError, asyncpg.PostgresError):
            await require_sessions(maintenance)
            connection = await maintenance.connect(command_timeout=ANSWER_SECONDS)
            try:
                return not await connection.fetchval(statements.EXISTS, database.name)
            finally:
                connection.terminate()
    return False


async def _creator(settings: ServiceSettings, service: str) -> Database:
    """Return the database through which the missing one can be created. Raises Unsuitable and NoDatabase."""
    reasons = []
    for maintenance in _maintenance(settings, service):
        try:
            await require_sessions(maintenance)
            connection = await maintenance.connect(command_timeout=ANSWER_SECONDS)
        except asyncpg.PostgresError as error:
            reasons.append(f"through {maintenance.name}: {described(error)}")
            continue
        try:
            if await connection.fetchval(statements.MAY_CREATE):
                return maintenance
        finally:
            connection.terminate()
        reasons.append(f"through {maintenance.name}: no right to create databases")
    raise _no_database(parse(settings.database_url_for(service)), reasons)


def _says_missing(error: asyncpg.PostgresError) -> bool:
    """Return whether the error means a missing database: PostgreSQL has an SQLSTATE for that, a pooler only a message."""
    return isinstance(error, asyncpg.InvalidCatalogNameError) or (
        isinstance(error, asyncpg.ProtocolViolationError) and bool(_MISSING.search(str(error)))
    )


def _maintenance(settings: ServiceSettings, service: str) -> list[Database]:
    """Databases from which another can be created: that of the shared URL, and `postgres`, which most servers have."""
    own = getattr(settings, f"{service}_database_url", None)
    shared = own or settings.database_url
    names = ["postgres"]
    if own is None and (named := name_of(shared)):
        names.insert(0, named)
    return [parse(with_name(shared, name)) for name in dict.fromkeys(names)]


async def _create(database: Database, through: Database) -> None:
    connection = await through.connect()
    try:
        await connection.execute(statements.create_database(database.name))
    except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):  # another process created it just now
        pass
    except asyncpg.PostgresError as error:
        raise _no_database(database, [described(error)]) from error
    finally:
        connection.terminate()


def _no_database(database: Database, reasons: Sequence[str]) -> NoDatabase:
    user = statements.quoted(database.user) if database.user else "CURRENT_USER"
    return NoDatabase(
        f"{database} does not exist and cannot be created by this user ({'; '.join(reasons)}). A user with this right "
        "creates it with: "
        f"{statements.create_database(database.name)} OWNER {user}"
    )
