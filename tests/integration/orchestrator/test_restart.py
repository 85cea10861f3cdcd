"""What stays when the process does not: open jobs, and the tables as they are described."""

from pathlib import Path
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from services.chassis.migrate import migrate
from services.chassis.tables import operational_tables
from services.orchestrator import tables
from tests.orchestrator import Orchestrator
from tests.toy import until


async def test_after_a_restart_open_jobs_go_on_where_they_were(kafka: str, database_url: str, tmp_path: Path) -> None:
    orchestrator = Orchestrator(kafka, database_url, tmp_path)
    job_id = orchestrator.prefix + "job"
    async with orchestrator.running():
        await orchestrator.ask(orchestrator.request("job"))
        await orchestrator.complete(job_id, "prepare")
        await until(lambda: orchestrator.asked(job_id, "train"))
    async with orchestrator.running():
        await orchestrator.complete(job_id, "train", "register")
        await orchestrator.status("job", "completed")
    story = [event for event in await orchestrator.log() if event.source == orchestrator.source]
    assert [event.type for event in story] == ["JobAccepted", *["StepRequested"] * 3, "JobCompleted"]
    assert [event.sequence for event in story] == [1, 2, 3, 4, 5]


async def test_the_migrations_make_the_tables_that_are_described(database_url: str, tmp_path: Path) -> None:
    settings = Orchestrator("127.0.0.1:1", database_url, tmp_path).settings
    await migrate(settings, "orchestrator")
    metadata = MetaData()
    operational_tables(metadata)
    for table in tables.metadata.tables.values():
        table.to_metadata(metadata)

    def compare(connection: Connection) -> list[Any]:
        options = {"include_schemas": True, "compare_server_default": True, "version_table_schema": "operational"}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        return [item for change in found for item in (change if isinstance(change, list) else [change])]

    engine = create_async_engine(settings.database_url_for("orchestrator"), poolclass=NullPool)
    async with engine.connect() as connection:
        changes = await connection.run_sync(compare)
    assert [change for change in changes if "comment" not in change[0] and "alembic_version" not in str(change[1])] == []
