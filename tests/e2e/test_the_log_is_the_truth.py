"""After kills, cancels and refusals every service still says exactly what the log says, and can be made again from it."""

import json
import os
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from schemas.steps import SERVICES
from services.chassis.postgres.urls import parse
from services.cli.serve import settings_of
from tests.command import ended
from tests.e2e.system import System, neuroweaver

NOW = "2999-01-01T00:00:00Z"
"""Every record of the log was appended by then."""


async def registry(system: System, statement: str) -> None:
    """Change the registry's database behind its back."""
    url = settings_of("registry", database_url=system.stack.database_url).database_url_for("registry")
    engine = parse(url).engine()
    async with engine.begin() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


@pytest.mark.usefixtures("finished")
def test_no_service_says_anything_that_does_not_follow_from_the_log(system: System) -> None:
    code, found = neuroweaver(system, "audit", "verify")
    assert code == 0
    assert {name: verdict["differences"] for name, verdict in found["services"].items()} == dict.fromkeys(SERVICES, 0)
    assert all(found["services"][name]["rows"] for name in ("orchestrator", "trainer", "registry"))


def test_a_really_made_version_is_traced_without_a_missing_link_and_proved_from_an_export(
    system: System, finished: dict[str, Any], tmp_path: Path
) -> None:
    job = finished
    version = f"{job['model']}@{job['version']}"
    code, trace = neuroweaver(system, "audit", "trace", version)
    assert (code, trace["missing"]) == (0, [])
    assert [step["status"] for step in trace["steps"]] == ["completed"] * len(trace["steps"])
    (made,) = trace["versions"]
    assert made["artifact"] == system.services["registry"].get(f"/models/{version}")["artifact"]
    assert (made["chain"][0]["type"], made["chain"][-1]["type"]) == ("JobRequested", "ModelRegistered")
    train = next(step for step in trace["steps"] if step["name"] == "train")
    assert {"recipe_sha256", "chat_template_sha256", "base_model_sha256"} <= train["facts"].keys()

    folder = str(tmp_path / "export")
    code, export = neuroweaver(system, "audit", "export", "--to", folder)
    assert code == 0
    place = made["registered"]["place"]
    kept = ("--digest", export["manifest_sha256"], "--record", place, "--against-log")
    code, verdict = neuroweaver(system, "audit", "verify-export", folder, *kept)
    assert (code, verdict["findings"]) == (0, 0)
    assert version.split("@")[0].encode() in b64decode(verdict["proof"]["leaf"])

    (then,) = [item for item in neuroweaver(system, "audit", "as-of", NOW, "jobs")[1] if item["job_id"] == job["job_id"]]
    assert then == {name: value for name, value in job.items() if name in then}


def test_the_evidence_of_a_really_made_version_is_verified_in_another_folder_without_the_system(
    system: System, finished: dict[str, Any], tmp_path: Path
) -> None:
    version = f"{finished['model']}@{finished['version']}"
    assert neuroweaver(system, "evidence", "keygen", str(tmp_path / "key"))[0] == 0
    written = ("evidence", version, "--key", str(tmp_path / "key"), "--out", str(tmp_path / "made"))
    code, made = neuroweaver(system, *written)
    assert (code, made["with_artifact"]) == (0, True), made
    copy = (tmp_path / "made").rename(tmp_path / "copy")

    def verified() -> tuple[int, Any]:
        done = ended(
            ["evidence", "verify", str(copy), "--key", str(tmp_path / "key.pub"), "--json"], {"PATH": os.environ["PATH"]}
        )
        return done.code or 0, done.json

    code, verdict = verified()
    assert (code, verdict["signer"], verdict["differences"]) == (0, "given", [])
    assert {check["verdict"] for check in verdict["checks"]} == {"holds"}, verdict["checks"]
    facts = {
        fact["name"]: fact["value"]
        for section in json.loads((copy / "technical-file.json").read_bytes())["sections"]
        for fact in section["facts"]
    }
    assert facts["FLOPs of all trainings"] > 0
    assert "library torch" in facts
    weights = copy / "artifact" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    code, verdict = verified()
    assert (code, verdict["differences"][0]["file"]) == (1, "artifact/adapter_model.safetensors")


@pytest.mark.usefixtures("finished")
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
