"""Rows and schemas that nothing needs go; a discarded record stays discarded, and open dead letters keep every byte."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from services.chassis.kernel.deadletters import repository
from services.chassis.replay.retention import chassis_removers
from services.chassis.settings import ServiceSettings
from services.chassis.storage.retention.policy import RetentionSettings
from services.chassis.storage.retention.run import Removal, retain
from services.orchestrator.app import build
from services.orchestrator.settings import OrchestratorSettings
from tests.toy import Toy

LETTER = """INSERT INTO dead_letter (topic, partition, "offset", state, value, headers, stack, error, appended_at, recorded_at, published)
            VALUES ('neuroweaver.requests', 0, :offset, :state, 'bytes', '[["a", "YQ=="]]', 'stack', 'why', now(), :at, :published)"""


@pytest.fixture
async def toy(kafka: str, database_url: str, tmp_path: Path) -> AsyncIterator[Toy]:
    toy = Toy(kafka, database_url, tmp_path)
    await toy.create()
    yield toy
    await toy.engine.dispose()


async def execute(toy: Toy, statement: str, **values: object) -> None:
    async with toy.engine.begin() as connection:
        await connection.execute(text(statement), values)


async def applied(toy: Toy, *, dry: bool = False, **policy: float) -> dict[str, Removal]:
    found = await retain(toy.name, chassis_removers(toy.engine, RetentionSettings.model_validate(policy)), dry=dry)
    assert not [one.error for one in found if one.error]
    return {one.kind: one for one in found if one.count}


async def test_a_discarded_record_loses_its_bytes_and_stays_discarded_and_open_ones_stay_whole(toy: Toy) -> None:
    async with toy.engine.connect() as connection:
        old = await connection.scalar(text("SELECT now() - interval '100 days'"))
        new = await connection.scalar(text("SELECT now() - interval '10 days'"))
    for offset, (state, at, published) in enumerate(
        [
            ("discarded", old, True),
            ("discarded", new, True),
            ("discarded", old, False),
            ("unreadable", old, True),
            ("failed", old, True),
        ]
    ):
        await execute(toy, LETTER, offset=offset, state=state, at=at, published=published)
    dry = (await applied(toy, dry=True))["discarded"]
    assert (dry.count, dry.size) == (1, len("bytes") + len('[["a", "YQ=="]]') + len("stack"))
    assert (await applied(toy))["discarded"] == dry
    assert await applied(toy) == {}
    async with toy.engine.connect() as connection:
        kept = (
            await connection.execute(text('SELECT "offset", value IS NOT NULL, state FROM dead_letter ORDER BY 1'))
        ).all()
        assert [tuple(row) for row in kept] == [
            (0, False, "discarded"), (1, True, "discarded"), (2, True, "discarded"), (3, True, "unreadable"), (4, True, "failed")
        ]  # fmt: skip
        assert len(await repository.record_ids(connection)) == 5, "every replay leaves them out as before"


async def test_old_replays_go_and_one_that_runs_never_does(toy: Toy) -> None:
    insert = """INSERT INTO replay (id, kind, state, phase, done, total, started_at, ended_at)
                VALUES (:id, 'verify', :state, 'x', 0, 0, now() - make_interval(days => :days), now() - make_interval(days => :ended))"""
    for number in range(5):
        await execute(toy, insert, id=f"new-{number}", state="done", days=number, ended=number)
    await execute(toy, insert, id="old", state="failed", days=100, ended=100)
    await execute(toy, insert, id="runs", state="running", days=200, ended=200)
    assert (await applied(toy))["replays"].count == 1
    assert (await applied(toy, replays_count=2))["replays"].count == 3
    assert await toy.scalar("SELECT string_agg(id, ' ' ORDER BY id) FROM replay") == "new-0 new-1 runs"


async def test_projections_that_were_replaced_long_ago_are_dropped(toy: Toy) -> None:
    for name in ("projection_20200101_000000_000001", "projection_by_hand"):
        await execute(toy, f"CREATE SCHEMA {name}")
        await execute(toy, f"CREATE TABLE {name}.tally AS SELECT 1 AS one")
    dry = (await applied(toy, dry=True))["projections"]
    assert (dry.count, dry.size > 0) == (1, True)
    assert (await applied(toy))["projections"] == dry
    left = await toy.scalar("SELECT string_agg(nspname, ' ' ORDER BY 1) FROM pg_namespace WHERE nspname LIKE 'projection%'")
    assert left == "projection projection_by_hand"


async def test_progress_of_ended_jobs_goes_and_that_of_a_running_one_stays(
    kafka: str, database_url: str, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    own = f"{database_url.rpartition('/')[0]}/{unique('orchestrator').replace('-', '_')}"
    from services.chassis.migrations.migrate import migrate
    from services.chassis.migrations.provision import create_database

    settings = OrchestratorSettings(
        kafka_bootstrap=kafka, database_url=database_url, orchestrator_database_url=own, home=tmp_path
    )
    await create_database(settings, "orchestrator")
    await migrate(settings, "orchestrator")
    service = build(settings)
    engine = service.retention.engine
    assert engine is not None
    async with engine.begin() as connection:
        for job, status in (("ended", "completed"), ("running", "running")):
            await connection.execute(
                text("INSERT INTO job (key, status) VALUES (:job, :status)"), {"job": job, "status": status}
            )
            await connection.execute(
                text("INSERT INTO progress (key, job_id, at, data) VALUES (:job, :job, now() - interval '8 days', '{}')"),
                {"job": job},
            )
    removals = {one.kind: one.count for one in await retain("orchestrator", service.retention.removers)}
    assert removals == {"inbox": 0, "discarded": 0, "replays": 0, "projections": 0, "progress": 1}
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT key FROM progress"))).scalars().all() == ["running"]
    await engine.dispose()


async def test_a_kind_that_fails_is_said_and_the_others_are_looked_through(toy: Toy) -> None:
    await execute(toy, "DROP TABLE replay")
    found = {one.kind: one.error for one in await retain(toy.name, chassis_removers(toy.engine, RetentionSettings()))}
    assert found.pop("replays", "")
    assert set(found.values()) == {None}


def test_the_defaults_are_one_documented_object(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(field.description for field in RetentionSettings.model_fields.values())
    monkeypatch.setenv("NEUROWEAVER_RETENTION_CACHE_DAYS", "3")
    assert ServiceSettings().retention.cache_days == 3
