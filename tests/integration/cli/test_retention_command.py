"""`neuroweaver retention` says what would go, kind by kind, removes it when told to, and says what it could not look through."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from services.chassis.kernel import store
from services.chassis.migrations.migrate import migrate
from services.chassis.migrations.provision import create_database
from services.orchestrator.settings import OrchestratorSettings
from tests.command import Ended, run


@pytest.fixture
async def settings(kafka: str, database_url: str, tmp_path: Path, unique: Callable[[str], str]) -> OrchestratorSettings:
    """Of an orchestrator with old progress of a job that is not open, beside an old log of the stack."""
    own = f"{database_url.rpartition('/')[0]}/{unique('orchestrator').replace('-', '_')}"
    settings = OrchestratorSettings(
        kafka_bootstrap=kafka, database_url=database_url, orchestrator_database_url=own, home=tmp_path / "home"
    )
    await create_database(settings, "orchestrator")
    await migrate(settings, "orchestrator")
    engine = store.connect(settings.database_url_for("orchestrator"))
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO progress (key, job_id, at, data) VALUES ('x', 'x', now() - interval '8 days', '{}')")
        )
    await engine.dispose()
    old_log(tmp_path / "home" / "logs" / "kafka.old.log")
    return settings


def old_log(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("old")
    os.utime(path, (0, 0))


async def retention(settings: OrchestratorSettings, *arguments: str, **more: str) -> Ended:
    environment = {
        "NEUROWEAVER_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "NEUROWEAVER_DATABASE_URL": settings.database_url,
        "NEUROWEAVER_ORCHESTRATOR_DATABASE_URL": str(settings.orchestrator_database_url),
        "NEUROWEAVER_HOME": str(settings.home),
        "NEUROWEAVER_CACHE": str(settings.home / "cache"),
    }
    return await run("http://127.0.0.1:1", "retention", *arguments, **{**environment, **more})


def counts(ended: Ended) -> dict[tuple[str, str], int]:
    found: list[dict[str, Any]] = ended.json
    return {(one["service"], one["kind"]): one["count"] for one in found if one["count"]}


async def test_a_dry_run_says_what_would_go_and_the_next_run_removes_it(settings: OrchestratorSettings) -> None:
    wanted = {("orchestrator", "progress"): 1, ("stack", "stack-logs"): 1}
    dry = await retention(settings, "orchestrator", "--dry-run", "--json")
    assert dry.code == 0, dry.err
    assert counts(dry) == wanted
    for_people = await retention(settings, "orchestrator", "--dry-run")
    assert "would go" in for_people.out
    assert "progress" in for_people.out
    assert counts(await retention(settings, "orchestrator", "--json")) == wanted
    assert not (settings.home / "logs" / "kafka.old.log").exists()
    assert "Nothing to remove" in (await retention(settings, "orchestrator")).out


async def test_the_policy_is_read_from_the_environment_and_an_unknown_service_is_wrong_usage(
    settings: OrchestratorSettings,
) -> None:
    longer = {"NEUROWEAVER_RETENTION_PROGRESS_DAYS": "30", "NEUROWEAVER_RETENTION_STACK_LOGS_DAYS": "100000"}
    assert counts(await retention(settings, "orchestrator", "--dry-run", "--json", **longer)) == {}
    assert (await retention(settings, "trainee")).code == 2


async def test_a_database_that_is_not_there_is_said_with_exit_code_1(settings: OrchestratorSettings) -> None:
    nowhere = f"{settings.database_url.rpartition('/')[0]}/nowhere"
    ended = await retention(settings, "orchestrator", "--json", NEUROWEAVER_ORCHESTRATOR_DATABASE_URL=nowhere)
    assert ended.code == 1
    assert any("nowhere" in str(one["error"]) for one in ended.json)
