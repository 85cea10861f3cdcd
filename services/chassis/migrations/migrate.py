"""Migrates one service's database to the schema of this code; an advisory lock lets the first process do it once.

A service that starts only checks whether a migration is needed, and runs it in a separate process, because Alembic would
stay in its memory.
"""

import asyncio
import os
import signal
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool

from services.chassis.migrations import statements
from services.chassis.migrations.provision import create_database
from services.chassis.migrations.revisions import missing, unknown, version_folders
from services.chassis.postgres.locks import MIGRATION_LOCK
from services.chassis.postgres.requirements import DatabaseRefused
from services.chassis.postgres.urls import STATEMENT_SECONDS, Database, parse
from services.chassis.process.logging import get_logger
from services.chassis.process.transient import described
from services.chassis.settings import ServiceSettings

if TYPE_CHECKING:
    from alembic.config import Config

_log = get_logger(__name__)
_LOCK_SECONDS = 60
_one_at_a_time = threading.Lock()
"""Alembic keeps the running migration in globals of the process: two at once, even of different databases, would mix."""


class MigrationFailed(DatabaseRefused):
    """The process that migrates ended with an error; the message is its output."""


class NewerDatabase(DatabaseRefused):
    """The database was migrated by a newer version of this code."""


def alembic_config(service: str) -> "Config":
    """Return the Alembic configuration of one service: chassis and service versions as two branches."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(str(folder) for folder in version_folders(service)))
    return config


async def ensure_migrated(settings: ServiceSettings, service: str) -> list[str]:
    """Migrate the service's database in a separate process if needed; return the revisions that it is at.

    Raises Unsuitable, NoDatabase, NewerDatabase, MigrationFailed and the database's errors.
    """
    database = await create_database(settings, service)
    engine = database.engine(statement_seconds=STATEMENT_SECONDS, poolclass=NullPool)
    try:
        found = await _applied(engine)
        _require_known(database, service, found)
        if not missing(service, found):
            return found
        await _migrate_apart(settings, service)
        return await revisions(engine)
    finally:
        await engine.dispose()


async def _migrate_apart(settings: ServiceSettings, service: str) -> None:
    urls = {"NEUROWEAVER_DATABASE_URL": settings.database_url}
    urls[f"NEUROWEAVER_{service.upper()}_DATABASE_URL"] = settings.database_url_for(service)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, service, env={**os.environ, **urls},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        said, complained = await process.communicate()
    except asyncio.CancelledError:  # its uncommitted changes are rolled back
        process.terminate()
        raise
    if process.returncode:
        _log.error("the migration failed", service=service, output=complained.decode(errors="replace")[-4000:])
        raise MigrationFailed(last_words(process.returncode, said.decode(errors="replace")))


def last_words(code: int, said: str) -> str:
    """Return why the process that migrates ended: what it printed, or the signal that ended it."""
    if words := said.strip():
        return words.splitlines()[-1]
    if code < 0:
        return f"the process that migrates was ended by {signal.Signals(-code).name}; the next start repeats the migration"
    return f"the process that migrates ended with exit code {code} without a message; the log has its output"


async def migrate(settings: ServiceSettings, service: str) -> list[str]:
    """Upgrade the service's database to the newest revisions; return the revisions that it is at afterwards.

    Raises Unsuitable, NoDatabase, NewerDatabase and the database's errors.
    """
    database = await create_database(settings, service)
    engine = database.engine(poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await _lock(connection, database)
            _require_known(database, service, await _applied(engine))
            for schema in ("projection", "operational"):
                await connection.execute(statements.create_schema(schema))
            await connection.commit()
            async with _alone():
                await connection.run_sync(_upgrade, service)
            await connection.commit()
            return await revisions(engine)
    finally:
        await engine.dispose()


async def _lock(connection: AsyncConnection, database: Database) -> None:
    """Take the lock that lets one process migrate at a time; a long wait is an error instead of endless."""
    await connection.execute(statements.SET_LOCK_TIMEOUT, {"wait": f"{_LOCK_SECONDS}s"})
    try:
        await connection.execute(statements.LOCK, {"lock": MIGRATION_LOCK})
    except DBAPIError as error:
        if isinstance(error.orig.__cause__ if error.orig else None, asyncpg.LockNotAvailableError):
            raise TimeoutError(f"another process has been migrating {database} for more than {_LOCK_SECONDS} s") from error
        raise
    await connection.execute(statements.RESET_LOCK_TIMEOUT)
    await connection.commit()


async def require_known(settings: ServiceSettings, service: str) -> None:
    """Check that this code knows the database's revisions. Raises NewerDatabase, and the database's errors."""
    database = parse(settings.database_url_for(service))
    engine = database.engine(poolclass=NullPool)
    try:
        _require_known(database, service, await _applied(engine))
    finally:
        await engine.dispose()


def _require_known(database: Database, service: str, found: Sequence[str]) -> None:
    if newer := unknown(service, found):
        raise NewerDatabase(
            f"{database} was migrated by a newer version: this one does not know {', '.join(sorted(newer))}; start the newer "
            "version, or restore a backup from before the upgrade"
        )


async def _applied(engine: AsyncEngine) -> list[str]:
    """Return the revisions that a database is at; none if it is empty."""
    async with engine.connect() as connection:
        if not await connection.scalar(statements.IS_MIGRATED):
            return []
    return await revisions(engine)


@asynccontextmanager
async def _alone() -> AsyncIterator[None]:
    while not _one_at_a_time.acquire(blocking=False):  # noqa: ASYNC110 (loops of several threads share it)
        await asyncio.sleep(0.02)
    try:
        yield
    finally:
        _one_at_a_time.release()


def _upgrade(connection: Connection, service: str) -> None:
    from alembic import command

    config = alembic_config(service)
    config.attributes["connection"] = connection
    command.upgrade(config, "heads")


async def revisions(engine: AsyncEngine) -> list[str]:
    """Return the Alembic revisions that a database is at."""
    async with engine.connect() as connection:
        rows = await connection.execute(statements.REVISIONS)
        return [row[0] for row in rows]


def main(service: str) -> int:
    """Migrate; if it fails, the last line on standard output is the reason."""
    try:
        asyncio.run(migrate(ServiceSettings(), service))
    except Exception as error:
        traceback.print_exc()
        print(described(cause(error)))  # noqa: T201
        return 1
    return 0


def cause(error: BaseException) -> BaseException:
    """Return the server's own error if SQLAlchemy wraps one, without statement and hints."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
