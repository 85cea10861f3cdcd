"""Each service's migrations make the tables that its code describes, and run once whoever starts first."""

import asyncio
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from schemas.steps import SERVICES
from services.chassis.database import parse
from services.chassis.migrate import alembic_config, migrate
from services.chassis.settings import ServiceSettings
from services.chassis.tables import operational_tables


def settings_of(service: str, database_url: str, home: Path) -> ServiceSettings:
    own = make_url(database_url).set(database=f"{service}_{uuid4().hex[:8]}").render_as_string(hide_password=False)
    return ServiceSettings.model_validate({f"{service}_database_url": own, "home": home})


@pytest.mark.parametrize("service", SERVICES)
async def test_the_migrations_make_the_tables_that_are_described(service: str, database_url: str, tmp_path: Path) -> None:
    settings = settings_of(service, database_url, tmp_path)
    await migrate(settings, service)
    metadata = operational()
    for table in import_module(f"services.{service}.tables").metadata.tables.values():
        table.to_metadata(metadata)

    def compare(connection: Connection) -> list[Any]:
        options = {"include_schemas": True, "compare_server_default": True, "version_table_schema": "operational"}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        return [item for change in found for item in (change if isinstance(change, list) else [change])]

    engine = parse(settings.database_url_for(service)).engine(poolclass=NullPool)
    async with engine.connect() as connection:
        changes = await connection.run_sync(compare)
    await engine.dispose()
    assert [change for change in changes if "comment" not in change[0] and "alembic_version" not in str(change[1])] == []


async def test_processes_that_start_at_once_migrate_one_after_the_other(database_url: str, tmp_path: Path) -> None:
    settings = settings_of("orchestrator", database_url, tmp_path)
    results = await asyncio.gather(*(migrate(settings, "orchestrator") for _ in range(4)))
    assert {tuple(revisions) for revisions in results} == {newest("orchestrator")}


async def test_services_of_one_process_that_migrate_at_once_do_not_get_into_each_others_way(
    database_url: str, tmp_path: Path
) -> None:
    for _ in range(3):
        settings = {service: settings_of(service, database_url, tmp_path) for service in SERVICES}
        results = await asyncio.gather(*(migrate(settings[service], service) for service in SERVICES))
        assert [tuple(revisions) for revisions in results] == [newest(service) for service in SERVICES]
        for service in SERVICES:
            assert await tables_of(settings[service].database_url_for(service)) == {
                table.name for table in import_module(f"services.{service}.tables").metadata.tables.values()
            } | {table.name for table in operational().tables.values()} | {"alembic_version"}


def newest(service: str) -> tuple[str, ...]:
    """The revisions of a database of this version: one per branch, unless one depends on the other's newest."""
    script = ScriptDirectory.from_config(alembic_config(service))
    heads = set(script.get_heads())
    needed = {str(revision.dependencies) for revision in script.walk_revisions() if revision.dependencies}
    return tuple(sorted(heads - needed))


def operational() -> MetaData:
    metadata = MetaData()
    operational_tables(metadata)
    return metadata


async def tables_of(url: str) -> set[str]:
    engine = parse(url).engine(poolclass=NullPool)
    async with engine.connect() as connection:
        found = await connection.execute(
            text("SELECT tablename FROM pg_tables WHERE schemaname IN ('projection', 'operational')")
        )
        names = {name for (name,) in found}
    await engine.dispose()
    return names
