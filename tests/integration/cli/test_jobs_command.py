"""`neuroweaver jobs` as a process against an orchestrator that runs: what it prints and how it ends."""

import asyncio
import json
import shutil
from pathlib import Path

from schemas.jobs import StepCompleted, StepFailed, StepFault, StepResult
from schemas.progress import StepProgressed
from services.chassis.storage.artifacts.store import ArtifactStore
from tests.command import Ended, run
from tests.orchestrator import ARTIFACT, Orchestrator
from tests.toy import until


async def jobs(orchestrator: Orchestrator, *arguments: str, stdin: str = "") -> Ended:
    return await run(str(orchestrator.http.base_url).removesuffix("/api/v1/"), "jobs", *arguments, stdin=stdin)


async def test_a_submitted_job_is_watched_to_its_end(orchestrator: Orchestrator) -> None:
    request = json.dumps(orchestrator.request("watched"))
    watching = asyncio.create_task(jobs(orchestrator, "submit", "-", "--watch", stdin=request))
    job_id = orchestrator.prefix + "watched"
    await orchestrator.status("watched", "running")
    for done in (1, 2):
        await orchestrator.say(StepProgressed, job_id, "prepare", done=done, of=2, unit="rows")
    await orchestrator.complete(job_id, "prepare", "train", "register")
    ended = await watching
    assert ended.code == 0, ended.err
    assert "✓ register: completed" in ended.out
    assert "router 1.0.0" in ended.out


async def test_a_job_that_fails_while_it_is_watched_ends_with_1_and_its_log_can_be_read(orchestrator: Orchestrator) -> None:
    job_id = orchestrator.prefix + "fails"
    await orchestrator.ask(orchestrator.request("fails"))
    await orchestrator.status("fails", "running")
    watching = asyncio.create_task(jobs(orchestrator, "watch", job_id, "--json"))
    await orchestrator.fail(job_id, "prepare")
    ended = await watching
    assert ended.code == 1
    last = json.loads(ended.out.splitlines()[-1])
    assert last["data"]["status"] == "failed"

    shown = await jobs(orchestrator, "logs", job_id)
    assert shown.code == 0
    assert "prepare, attempt 1: user: it broke" in shown.out
    assert "  last line" in shown.out
    (entry,) = (await jobs(orchestrator, "logs", job_id, "--step", "prepare", "--json")).json
    assert entry["log_tail"] == ["first line", "last line"]
    assert (await jobs(orchestrator, "logs", job_id, "--step", "ghost")).code == 4


async def test_a_faulty_request_ends_with_1_and_the_reasons(orchestrator: Orchestrator) -> None:
    faulty = json.dumps(orchestrator.request("faulty", pipeline="magic"))
    ended = await jobs(orchestrator, "submit", "-", stdin=faulty)
    assert ended.code == 1
    assert "pipeline: unknown pipeline 'magic'" in ended.err
    assert (await jobs(orchestrator, "submit", "-", "--json", stdin=faulty)).json["status"] == 422


async def test_jobs_are_listed_shown_and_cancelled(orchestrator: Orchestrator) -> None:
    job_id = orchestrator.prefix + "listed"
    submitted = await jobs(orchestrator, "submit", "-", "--json", stdin=json.dumps(orchestrator.request("listed")))
    assert submitted.json["job_id"] == job_id
    (listed,) = (await jobs(orchestrator, "list", "--limit", "1", "--json")).json
    assert (listed["job_id"], listed["steps_done"], listed["steps"]) == (job_id, 0, 3)
    assert job_id in (await jobs(orchestrator, "list", "--status", "running")).out
    shown = await jobs(orchestrator, "show", job_id)
    assert "prepare" in shown.out
    assert (await jobs(orchestrator, "show", job_id, "--json")).json["request"]["base_model"] == "/models/base"

    cancelled = await jobs(orchestrator, "cancel", job_id, "--reason", "enough", "--json")
    assert cancelled.json["cancel"]["reason"] == "enough"
    await orchestrator.stop(job_id, "prepare")
    await orchestrator.status("listed", "cancelled")
    again = await jobs(orchestrator, "cancel", job_id)
    assert (again.code, "cancelled" in again.err) == (1, True)
    resubmitted = await jobs(orchestrator, "submit", "-", stdin=json.dumps(orchestrator.request("listed")))
    assert (resubmitted.code, "is cancelled: nothing was started" in resubmitted.err) == (0, True)
    assert "another job_id" in resubmitted.err


async def test_the_request_of_a_job_is_sent_again_under_a_new_id(orchestrator: Orchestrator) -> None:
    first = orchestrator.prefix + "first"
    await orchestrator.ask(orchestrator.request("first", register_version="1.0.0"))
    await orchestrator.status("first", "running")
    again = (await jobs(orchestrator, "again", first, "--base-model", "/models/other", "--json")).json
    assert again["job_id"].startswith(f"{first}-again-")
    shown = [(await orchestrator.http.get(f"training/{job_id}")).json()["request"] for job_id in (first, again["job_id"])]
    differs = {name for name in shown[0] if shown[0][name] != shown[1][name]}
    assert differs == {"job_id", "base_model", "register_version"}, "a number is given once"
    assert (await jobs(orchestrator, "again", "nobody")).code == 4


async def test_a_job_that_nobody_requested_ends_with_4(orchestrator: Orchestrator) -> None:
    for command in ("show", "watch"):
        ended = await jobs(orchestrator, command, "nobody/at all")
        assert ended.code == 4, (command, ended)
        assert "Traceback" not in ended.err
        assert "`neuroweaver jobs list`" in ended.err, "and no route"
        assert "GET " not in ended.err
    over_http = await orchestrator.http.get("training/nobody")
    assert "GET /api/v1/training lists" in over_http.json()["detail"]


async def test_reports_of_completed_steps_are_saved_as_files(orchestrator: Orchestrator, tmp_path: Path) -> None:
    job_id = orchestrator.prefix + "reported"
    await orchestrator.ask(orchestrator.request("reported"))
    await orchestrator.status("reported", "running")
    none = await jobs(orchestrator, "report", job_id, "--folder", str(tmp_path))
    assert none.code == 4
    assert "no step of job" in none.err
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "report.html").write_text("<p>what prepare made</p>")
    report = ArtifactStore(orchestrator.settings.artifacts_uri).put(folder)
    result = StepResult(outputs={"dataset": ARTIFACT, "report": report})
    await orchestrator.say(StepCompleted, job_id, "prepare", result=result)
    await until(lambda: orchestrator.asked(job_id, "train"))
    saved = await jobs(orchestrator, "report", job_id, "--folder", str(tmp_path), "--json")
    assert saved.code == 0, saved.err
    assert saved.json["prepare"] == str(tmp_path / f"{job_id}-prepare.html")
    assert (tmp_path / f"{job_id}-prepare.html").read_text() == "<p>what prepare made</p>"
    assert (await jobs(orchestrator, "report", job_id, "--folder", str(tmp_path / "absent"))).code == 2
    assert (await jobs(orchestrator, "report", job_id, "--step", "ghost", "--folder", str(tmp_path))).code == 4

    answer = await orchestrator.http.get(f"/training/{job_id}/steps/prepare/report")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    running = await orchestrator.http.get(f"/training/{job_id}/steps/train/report")
    assert (running.status_code, "has not completed" in running.json()["detail"]) == (404, True)
    fault = StepFault(cause="user", message="row 3", report=report)
    await orchestrator.say(StepFailed, job_id, "train", fault=fault)
    await orchestrator.status("reported", "failed")
    failed = await jobs(orchestrator, "report", job_id, "--folder", str(tmp_path), "--json")
    assert set(failed.json) == {"prepare", "train"}
    assert f"jobs report {job_id} --step train" in (await jobs(orchestrator, "watch", job_id)).err
    shutil.rmtree(report.uri)
    gone = await orchestrator.http.get(f"/training/{job_id}/steps/prepare/report")
    assert (gone.status_code, "the artifact is missing" in gone.json()["detail"]) == (404, True)
