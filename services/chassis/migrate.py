"""Why: brings one service's database to the schema of this code, once, whoever starts first (advisory lock).

A service that starts only looks whether there is something to do, and has it done by a process that ends: Alembic would
stay in its memory.
"""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from services.chassis.revisions import missing, version_folders
from services.chassis.settings import ServiceSettings

if TYPE_CHECKING:
    from alembic.config import Config

_LOCK = 7_253_001
_one_at_a_time = threading.Lock()
"""Alembic keeps the running migration in globals of the process: two at once, of whatever databases, mix up."""
_TABLE = text("SELECT to_regclass('operational.alembic_version') IS NOT NULL")


class MigrationFailed(Exception):
    """The process that migrates ended with an error; the message is what it said."""


def alembic_config(service: str) -> "Config":
    """The Alembic configuration of one service: chassis and service versions as two branches."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(str(folder) for folder in version_folders(service)))
    return config


async def ensure_migrated(settings: ServiceSettings, service: str) -> list[str]:
    """The revisions that the service's database is at, after a process of its own brought it there where needed.

    Raises MigrationFailed and the database's errors.
    """
    await create_database(settings, service)
    engine = create_async_engine(settings.database_url_for(service), poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            found = await revisions(engine) if await connection.scalar(_TABLE) else []
        if not missing(service, found):
            return found
        await _migrate_apart(settings, service)
        return await revisions(engine)
    finally:
        await engine.dispose()


async def _migrate_apart(settings: ServiceSettings, service: str) -> None:
    own = make_url(settings.database_url_for(service)).set(drivername="postgresql").render_as_string(hide_password=False)
    environment = {"NEUROWEAVER_DATABASE_URL": settings.database_url, f"NEUROWEAVER_{service.upper()}_DATABASE_URL": own}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, service, env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:  # what it has not committed is rolled back
        process.terminate()
        raise
    if process.returncode:
        raise MigrationFailed((output.decode(errors="replace").strip().splitlines() or ["no word"])[-1])


async def create_database(settings: ServiceSettings, service: str) -> None:
    """Create the service's database where it is missing and we may."""
    url = make_url(settings.database_url_for(service))
    engine = create_async_engine(url.set(database="postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            found = await connection.scalar(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": url.database})
            if not found:
                await connection.execute(text(f'CREATE DATABASE "{url.database}"'))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in ("42P04", "23505"):  # somebody else created it just now
            raise
    finally:
        await engine.dispose()


async def migrate(settings: ServiceSettings, service: str) -> list[str]:
    """Upgrade the service's database to the newest revisions; returns the revisions it is at afterwards."""
    await create_database(settings, service)
    engine = create_async_engine(settings.database_url_for(service), poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
            for schema in ("projection", "operational"):
                await connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
            await connection.commit()
            async with _alone():
                await connection.run_sync(_upgrade, service)
            await connection.commit()
            return await revisions(engine)
    finally:
        await engine.dispose()


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
    """The Alembic revisions that a database is at."""
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT version_num FROM operational.alembic_version ORDER BY 1"))
        return [row[0] for row in rows]


if __name__ == "__main__":
    asyncio.run(migrate(ServiceSettings(), sys.argv[1]))
