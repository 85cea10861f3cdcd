"""A service's new database with the tables of its migrations, which run once per server: what they leave is copied.

That a service migrates its own database is the subject of `tests/integration/chassis/test_migrations.py` and of the commands' tests.
"""

import asyncio
import os
from contextlib import suppress

import asyncpg
from sqlalchemy.engine import make_url

from schemas.steps import SERVICES
from services.chassis.migrations.migrate import migrate
from services.chassis.settings import ServiceSettings

_made: dict[tuple[str, str], "asyncio.Task[None]"] = {}
"""For each server, by its address, the SQL that creates a service's database as a copy."""


class _At(ServiceSettings):
    place: str

    def database_url_for(self, service: str) -> str:
        return self.place


async def provide(settings: ServiceSettings, service: str) -> None:
    """Create and migrate the service's database if it does not exist yet."""
    wanted = make_url(settings.database_url_for(service))
    original = f"to_copy_{service if service in SERVICES else 'toy'}_{os.getpid()}"
    server = wanted.set(database="postgres").render_as_string(hide_password=False)
    connection = await asyncpg.connect(server)
    try:
        if await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", wanted.database):
            return
        if (server, original) not in _made:
            place = wanted.set(database=original).render_as_string(hide_password=False)
            _made[server, original] = asyncio.ensure_future(_make(place, service, settings))
        await _made[server, original]
        with suppress(asyncpg.ObjectInUseError):
            await connection.execute(f'CREATE DATABASE "{wanted.database}" TEMPLATE "{original}"')
            return
        await _make(
            wanted.render_as_string(hide_password=False), service, settings
        )  # a pooler keeps sessions of the original
    finally:
        await connection.close()


async def _make(place: str, service: str, settings: ServiceSettings) -> None:
    await migrate(_At(place=place, database_url=place, home=settings.home), service)
