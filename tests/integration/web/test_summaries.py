"""What a list tells of a row is finished in a column: the same as its columns made by hand, whoever wrote the row and however odd it is."""

import json
from importlib import import_module
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from alembic import command
from sqlalchemy import Connection
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from benchmarks.edge.rows import put_jobs, put_models
from schemas.models import Lineage
from services.chassis.migrations.migrate import alembic_config, migrate
from services.chassis.postgres.urls import parse
from services.chassis.settings import ServiceSettings
from services.orchestrator.views import JobSummary
from services.registry.domain.state import NEWEST, ModelState, RegistrationState
from services.registry.views import VersionSummary
from tests.integration.web.test_answers import ODD

FINISHED = {
    "job": "summary",
    "version": """r.summary || ',"purpose":' || to_json(r.purpose) || ',"started_from":' || coalesce(CAST(to_json(r.started_from) AS text), 'null') || ',"state":' || to_json(r.version_state) || ',"tags":' || coalesce(CAST(r.tags AS text), '{}') || ',"erased_rows":' || coalesce(r.erased_rows, 0) || ',"aliases":' || CAST(coalesce(m.named -> r.version, '[]') AS text) || '}'""",
}
ROWS = {"job": "job", "version": "registration r JOIN model m ON m.key = r.model"}


def written(time: str) -> str:
    return f"""replace(to_char({time} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '.000000Z', 'Z')"""


BY_HAND = {
    "job": {
        "job_id": "key", **{name: name for name in ("status", "requester", "pipeline", "model", "version", "steps", "steps_done")},
        **{name: written(name) for name in ("requested_at", "ended_at", "updated_at")}, "sequence": "sequence",
    },
    "version": {
        "id": "r.model || '@' || r.version", "name": "r.model", "version": "r.version",
        "purpose": "coalesce(r.state -> 'registered' ->> 'purpose', 'answers')",
        "started_from": "r.state -> 'registered' -> 'lineage' ->> 'started_from'",
        "state": "coalesce(r.state ->> 'state', 'live')",
        "tags": "coalesce(r.state -> 'tags', '{}')",
        "erased_rows": "coalesce((SELECT sum(CAST(e.value ->> 'rows' AS bigint)) FROM jsonb_each(r.state -> 'erased') AS e), 0)",
        "aliases": """ARRAY(SELECT n.key FROM jsonb_each_text(m.aliases) AS n WHERE n.value = r.version ORDER BY n.key COLLATE "C")""",
        "registered_at": written("r.registered_at"),
        **{name: f"r.{name}" for name in ("job_id", "requester", "base_model", "dataset_sha256")},
        "metrics": "r.state -> 'registered' -> 'metrics'",
    },
}  # fmt: skip
ODD_JOBS = """INSERT INTO projection.job (key, status, requester, pipeline, model, version, steps, steps_done, requested_at, ended_at,
                                          updated_at, sequence)
    SELECT CAST($1 AS text) || number, $1, $1, $1, $1, $1, number, -number, CAST(at AS timestamptz), CAST(at AS timestamptz), now(), number
    FROM unnest(ARRAY['0001-01-01 00:00:00+00', '9999-12-31 23:59:59.999999+00', '2026-11-02 03:19:00.5+05:30',
                      '1969-12-31 23:59:59.000001+00', '2000-02-29 12:00:00-11']) WITH ORDINALITY AS odd(at, number)
    UNION ALL SELECT 'nothing', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 2 ^ 62"""


@pytest.fixture(scope="module")
async def urls(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Databases of an orchestrator and a registry, with a few rows each."""
    made = {}
    for service, put in (("orchestrator", put_jobs), ("registry", put_models)):
        own = make_url(database_url).set(database=f"{service}_{uuid4().hex[:8]}").render_as_string(hide_password=False)
        settings = ServiceSettings.model_validate({f"{service}_database_url": own, "home": tmp_path_factory.mktemp("home")})
        await migrate(settings, service)
        await put(own, 3)
        made[service] = own
    return made


async def told(url: str, item: str) -> dict[str, Any]:
    """Each item of a list as its column has it, by its key; the same as it is made by hand."""
    fields = ", ".join(f"{source} AS {name}" for name, source in BY_HAND[item].items())
    key = "key" if item == "job" else "r.key"
    connection = await asyncpg.connect(url, server_settings={"search_path": "projection"})
    try:
        rows = await connection.fetch(
            f"""SELECT {key}, {FINISHED[item]}, (SELECT CAST(row_to_json(made) AS text) FROM (SELECT {fields}) AS made)
                FROM {ROWS[item]}"""
        )
    finally:
        await connection.close()
    assert [json.loads(finished) for _, finished, _ in rows] == [json.loads(by_hand) for *_, by_hand in rows]
    return {key: finished for key, finished, _ in rows}


async def test_a_summary_of_a_job_says_what_its_columns_say_in_any_session(urls: dict[str, str]) -> None:
    connection = await asyncpg.connect(
        urls["orchestrator"], server_settings={"TimeZone": "Asia/Kolkata", "DateStyle": "German, DMY"}
    )
    try:
        await connection.fetch(ODD_JOBS, ODD)
        found = await told(urls["orchestrator"], "job")
        assert len(found) == 3 + 5 + 1
        assert {tuple(json.loads(summary)) for summary in found.values()} == {tuple(JobSummary.model_fields)}
    finally:
        await connection.execute("DELETE FROM projection.job WHERE state = '{}'")
        await connection.close()


async def test_a_summary_of_a_version_says_what_its_rows_say(urls: dict[str, str]) -> None:
    found = await told(urls["registry"], "version")
    assert len(found) == 3
    for summary in found.values():
        assert json.loads(summary).keys() == VersionSummary.model_fields.keys()
        assert VersionSummary.model_validate_json(summary).aliases == ("candidate",)


@pytest.mark.parametrize(("service", "item"), [("orchestrator", "job"), ("registry", "version")])
async def test_a_migration_finishes_what_is_there_as_it_would_be_written_now(
    urls: dict[str, str], service: str, item: str
) -> None:
    before = await told(urls[service], item)
    await there_and_back(
        urls[service], service, {"orchestrator": "orchestrator_0002", "registry": "registry_0003"}[service]
    )
    assert await told(urls[service], item) == before


async def there_and_back(url: str, service: str, version: str) -> None:
    """Bring a database to an earlier revision and to the newest again."""

    def migrated(connection: Connection) -> None:
        config = alembic_config(service)
        config.attributes["connection"] = connection
        command.downgrade(config, version)
        command.upgrade(config, "heads")

    engine = parse(url).engine(poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(migrated)
    await engine.dispose()


async def test_a_model_that_an_earlier_release_stored_is_bounded_and_keeps_its_aliases(urls: dict[str, str]) -> None:
    versions = [f"1.{number}.0" for number in range(25)]
    move = {"alias": "prod", "version": "1.3.0", "previous": None, "at": "2026-11-01T00:00:00Z"}
    lineage = {
        "job_id": "j", "step": "register", "requester": "r", "base_model": "base", "base_model_sha256": None,
        "dataset_sha256": "d" * 64, "configuration": {"rank": 8}, "results": {"train": {"metrics": {"loss": 1.0}}},
    }  # fmt: skip
    old = {"versions": versions, "latest": lineage, "aliases": {"prod": "1.3.0"}, "moves": [move], "opened_by": "e"}
    connection = await asyncpg.connect(urls["registry"])
    try:
        await connection.execute(
            "INSERT INTO projection.model (key, sequence, state) VALUES ('earlier', 26, $1)", json.dumps(old)
        )
        await connection.executemany(
            "INSERT INTO projection.registration (key, model, version) VALUES ($1, 'earlier', $1)", [(v,) for v in versions]
        )
        await there_and_back(urls["registry"], "registry", "registry_0008")
        stored = await connection.fetchval("SELECT CAST(state AS text) FROM projection.model WHERE key = 'earlier'")
    finally:
        await connection.execute("DELETE FROM projection.model WHERE key = 'earlier'")
        await connection.execute("DELETE FROM projection.registration WHERE model = 'earlier'")
        await connection.close()
    assert not {"versions", "moves"} & json.loads(stored).keys()
    state = ModelState.model_validate_json(stored)
    assert (state.count, state.highest, state.newest) == (25, "1.24.0", tuple(versions[-NEWEST:]))
    assert state.lines == {"1": "1.24.0"}
    assert state.latest == Lineage.model_validate({**lineage, "results": {}})
    assert (state.aliases, state.earlier, state.aliases_at, state.opened_by) == ({"prod": "1.3.0"}, {}, 26, "e")


async def test_rows_from_before_approval_and_states_read_as_a_rebuild_makes_them(urls: dict[str, str]) -> None:
    """Also a row that a command locked and left as it was: one of a refused move."""
    move = {
        "alias": "prod",
        "kind": "promoted",
        "version": "1.0.0",
        "previous": None,
        "at": "2026-11-01T00:00:00Z",
        "by": "a",
        "reason": "",
    }
    rows = {
        "model": {"aliases": {"prod": "1.0.0"}, "policies": {"prod": {"gates": [], "protected": True, "rollback_days": 3.0}}},
        "alias_move": {"model": "earlier", "move": move},
        "registration": {"description": "old", "tags": {}},
    }  # fmt: skip
    connection = await asyncpg.connect(urls["registry"])
    try:
        for table, old in rows.items():
            written = f"INSERT INTO projection.{table} (key, state) VALUES ('earlier', $1), ('locked', '{{}}')"
            await connection.execute(written, json.dumps(old))
        await there_and_back(urls["registry"], "registry", "registry_0013")
        now = {
            table: await connection.fetchval(f"SELECT CAST(state AS text) FROM projection.{table} WHERE key = 'earlier'")
            for table in rows
        }
    finally:
        for table in rows:
            await connection.execute(f"DELETE FROM projection.{table} WHERE key IN ('earlier', 'locked')")
        await connection.close()
    assert ModelState.stored(now["model"]).policy("prod").protected
    assert json.loads(now["model"])["policies"]["prod"]["approval"] is False
    assert json.loads(now["model"])["requests"] == {}
    stored = json.loads(now["alias_move"])["move"]
    assert stored == {**move, "request": None, "approved_by": None}
    assert (RegistrationState.stored(now["registration"]).state, json.loads(now["registration"])["state"]) == (
        "live",
        "live",
    )


@pytest.mark.parametrize("service", ["orchestrator", "registry"])
async def test_the_columns_that_migrations_generate_are_made_as_they_are_described(
    urls: dict[str, str], service: str
) -> None:
    """Alembic compares texts, and PostgreSQL writes an expression in its own way."""
    generated = """SELECT table_name, column_name, generation_expression FROM information_schema.columns
                   WHERE table_schema = $1 AND is_generated = 'ALWAYS' ORDER BY 1, 2"""
    metadata = import_module(f"services.{service}.tables").metadata
    engine = parse(urls[service]).engine({"search_path": "described"}, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("CREATE SCHEMA described")
        translated = await connection.execution_options(
            schema_translate_map={"projection": "described", "operational": "described"}
        )
        await translated.run_sync(metadata.create_all)
        rows = {
            schema: (await connection.exec_driver_sql(generated, (schema,))).all() for schema in ("projection", "described")
        }
        await connection.exec_driver_sql("DROP SCHEMA described CASCADE")
    await engine.dispose()
    assert rows["projection"] == rows["described"] != []
