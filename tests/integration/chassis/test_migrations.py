"""Each service's migrations make the tables that its code describes, and run once whoever starts first."""

import asyncio
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from schemas.steps import SERVICES
from services.chassis.kernel.tables import operational_tables
from services.chassis.migrations.migrate import (
    MigrationFailed,
    NewerDatabase,
    alembic_config,
    ensure_migrated,
    last_words,
    migrate,
    require_known,
)
from services.chassis.migrations.provision import create_database
from services.chassis.postgres.urls import parse
from services.chassis.settings import ServiceSettings
from tests.toy import until


def settings_of(service: str, database_url: str, home: Path) -> ServiceSettings:
    own = make_url(database_url).set(database=f"{service}_{uuid4().hex[:8]}").render_as_string(hide_password=False)
    return ServiceSettings.model_validate({f"{service}_database_url": own, "home": home})


@pytest.mark.filterwarnings("ignore:Computed default")  # texts that tests/integration/web/test_summaries.py compares
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


async def test_a_database_of_a_newer_version_is_refused_at_the_start(database_url: str, tmp_path: Path) -> None:
    settings = settings_of("registry", database_url, tmp_path)
    await migrate(settings, "registry")
    await execute(
        settings, "UPDATE operational.alembic_version SET version_num = 'registry_9999' WHERE version_num LIKE 'registry%'"
    )

    for start in (
        ensure_migrated(settings, "registry"),
        migrate(settings, "registry"),
        require_known(settings, "registry"),
    ):
        with pytest.raises(NewerDatabase, match=r"does not know registry_9999; start the newer version"):
            await start


async def test_why_a_migration_failed_is_its_last_word(database_url: str, tmp_path: Path) -> None:
    settings = settings_of("registry", database_url, tmp_path)
    await create_database(settings, "registry")
    await execute(settings, "CREATE SCHEMA operational; CREATE TABLE operational.inbox (mine text)")

    with pytest.raises(MigrationFailed, match=r'^DuplicateTableError: relation "inbox" already exists$'):
        await ensure_migrated(settings, "registry")


async def test_a_migration_that_is_killed_half_way_is_taken_up_by_the_next_start(database_url: str, tmp_path: Path) -> None:
    """It waits half way for a table that somebody is just making, until it is killed."""
    settings = settings_of("registry", database_url, tmp_path)
    database = await create_database(settings, "registry")
    await execute(settings, "CREATE SCHEMA operational")
    holder = await database.connect()
    making = holder.transaction()
    await making.start()
    await holder.execute("CREATE TABLE operational.inbox (mine text)")
    starting = asyncio.create_task(ensure_migrated(settings, "registry"))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    observer = await database.connect()

    async def half_way() -> bool:
        return bool(await observer.fetchval(waiting))

    await until(half_way, 120)
    (migrating,) = [
        child for child in psutil.Process().children() if "services.chassis.migrations.migrate" in child.cmdline()
    ]
    migrating.kill()
    with pytest.raises(MigrationFailed, match="ended by SIGKILL; the next start repeats the migration"):
        await starting
    await making.rollback()
    for connection in (holder, observer):
        await connection.close()

    assert tuple(await ensure_migrated(settings, "registry")) == newest("registry")


@pytest.mark.parametrize(
    ("code", "said", "words"),
    [
        (1, "something before\nDuplicateTableError: relation\n\n", "DuplicateTableError: relation"),
        (-9, "", "ended by SIGKILL"),
        (3, " \n", "exit code 3 without a message"),
    ],
)
def test_a_migration_always_has_a_last_word(code: int, said: str, words: str) -> None:
    assert words in last_words(code, said)


async def execute(settings: ServiceSettings, statement: str) -> None:
    connection = await parse(settings.database_url_for("registry")).connect()
    await connection.execute(statement)
    await connection.close()
