"""After kills, cancels and refusals every service still says exactly what the log says, and can be made again from it."""

import json
import subprocess
import sys
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from schemas.steps import SERVICES
from services.cli.serve import settings_of
from tests.e2e.system import System


def neuroweaver(system: System, *arguments: str) -> tuple[int, Any]:
    """Exit code and JSON of a command, as an operator beside the running services calls it."""
    command = [sys.executable, "-m", "services.cli.main", *arguments, "--json"]
    done = subprocess.run(command, env=dict(system.services["registry"].env), capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


async def registry(system: System, statement: str) -> None:
    """Change the registry's database behind its back."""
    url = settings_of("registry", database_url=system.stack.database_url).database_url_for("registry")
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


def test_no_service_says_anything_that_does_not_follow_from_the_log(system: System) -> None:
    system.wait_job(system.start_job())
    code, found = neuroweaver(system, "audit", "verify")
    assert code == 0
    assert {name: verdict["differences"] for name, verdict in found["services"].items()} == dict.fromkeys(SERVICES, 0)
    assert all(found["services"][name]["rows"] for name in ("orchestrator", "trainer", "registry"))


async def test_a_row_changed_by_hand_is_found_by_verify_and_healed_by_rebuild(system: System) -> None:
    await registry(system, "UPDATE projection.registration SET version = '9.9.9' WHERE version = '1.0.0'")
    code, found = neuroweaver(system, "audit", "verify")
    assert code == 1
    assert found["services"]["registry"]["differences"] > 0
    assert neuroweaver(system, "projections", "rebuild", "registry")[0] == 0
    assert neuroweaver(system, "audit", "verify")[0] == 0
    assert "9.9.9" not in {model["version"] for model in system.services["registry"].get("/models")["items"]}


def test_every_service_is_rebuilt_while_a_job_runs(system: System) -> None:
    job_id = system.start_job()
    for service in SERVICES:
        assert neuroweaver(system, "projections", "rebuild", service)[0] == 0
    system.wait_job(job_id)
    code, found = neuroweaver(system, "audit", "verify")
    assert (code, sum(verdict["differences"] for verdict in found["services"].values())) == (0, 0)
