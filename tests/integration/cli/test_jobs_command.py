"""`neuroweaver jobs` as a process against an orchestrator that runs: what it prints and how it ends."""

import asyncio
import json

from schemas.progress import StepProgressed
from tests.command import Ended, run
from tests.orchestrator import Orchestrator


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


async def test_a_job_that_nobody_requested_ends_with_4(orchestrator: Orchestrator) -> None:
    for command in ("show", "watch"):
        ended = await jobs(orchestrator, command, "nobody/at all")
        assert ended.code == 4, (command, ended)
        assert "Traceback" not in ended.err
        assert "`neuroweaver jobs list`" in ended.err, "and no route"
        assert "GET " not in ended.err
    over_http = await orchestrator.http.get("training/nobody")
    assert "GET /api/v1/training lists" in over_http.json()["detail"]
