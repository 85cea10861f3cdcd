"""Retry, pause, resume and priority by event, over HTTP and from the command line, on a real broker and database."""

import json
from typing import Any

from schemas.requests import JobControlRequested
from services.chassis.kafka.publisher import outside_event
from tests.command import Ended, run
from tests.orchestrator import Orchestrator
from tests.toy import until


async def jobs(orchestrator: Orchestrator, *arguments: str, stdin: str = "") -> Ended:
    return await run(str(orchestrator.http.base_url).removesuffix("/api/v1/"), "jobs", *arguments, stdin=stdin)


async def failed(orchestrator: Orchestrator, name: str) -> str:
    """Return the id of a job that failed in training."""
    job_id = orchestrator.prefix + name
    await orchestrator.ask(orchestrator.request(name))
    await orchestrator.complete(job_id, "prepare")
    await until(lambda: orchestrator.asked(job_id, "train"))
    await orchestrator.fail(job_id, "train")
    await orchestrator.status(name, "failed")
    return job_id


def attempts(job: dict[str, Any]) -> dict[str, int]:
    return {step["name"]: len(step["attempts"]) for step in job["steps"]}


async def test_a_failed_job_is_retried_over_http_and_keeps_what_was_completed(orchestrator: Orchestrator) -> None:
    job_id = await failed(orchestrator, "retried")
    assert f"POST /api/v1/training/{job_id}/retry" in (await orchestrator.job("retried"))["failure"]["remedy"]
    answer = await orchestrator.http.post(f"/training/{job_id}/retry", json={"reason": "the judge is back"})
    assert (answer.status_code, answer.json()["status"]) == (202, "running")
    assert attempts(answer.json()) == {"prepare": 1, "train": 2, "register": 0}

    again = await orchestrator.http.post(f"/training/{job_id}/retry")
    assert again.status_code == 409
    assert "the job is running" in again.json()["detail"]


async def test_sending_a_failed_job_again_starts_nothing_and_says_how_to_go_on(orchestrator: Orchestrator) -> None:
    job_id = await failed(orchestrator, "again")
    answer = await orchestrator.http.post("/training/start", json=orchestrator.request("again"))
    assert (answer.status_code, answer.json()["status"]) == (202, "failed")
    assert "continues the job from its failed step" in answer.json()["failure"]["remedy"]

    typed = await jobs(orchestrator, "submit", "-", stdin=json.dumps(orchestrator.request("again")))
    assert "nothing was started" in typed.err
    assert f"jobs retry {job_id}` continues the job from its failed step" in " ".join(typed.err.split())

    retried = await jobs(orchestrator, "retry", job_id, "--reason", "again", "--json")
    assert retried.json["status"] == "running"
    refused = await jobs(orchestrator, "retry", job_id)
    assert refused.code == 1
    assert "only a failed job can be retried" in refused.err
    assert (await jobs(orchestrator, "retry", "nobody")).code == 4


async def test_a_job_is_paused_and_resumed(orchestrator: Orchestrator) -> None:
    job_id = orchestrator.prefix + "paused"
    await orchestrator.ask(orchestrator.request("paused"))
    await orchestrator.complete(job_id, "prepare")
    await until(lambda: orchestrator.asked(job_id, "train"))
    paused = await jobs(orchestrator, "pause", job_id, "--json")
    assert paused.json["status"] == "paused"
    assert (await orchestrator.http.get("/training", params={"status": "paused"})).json()["items"][0]["job_id"] == job_id
    await orchestrator.stop(job_id, "train")
    resumed = await orchestrator.http.post(f"/training/{job_id}/resume")
    assert (resumed.status_code, resumed.json()["status"]) == (202, "running")
    await until(lambda: orchestrator.asked(job_id, "train", 2))
    assert (await orchestrator.http.post(f"/training/{job_id}/resume")).status_code == 409


async def test_a_priority_is_changed_and_one_that_is_none_is_refused(orchestrator: Orchestrator) -> None:
    job_id = orchestrator.prefix + "urgent"
    await orchestrator.ask(orchestrator.request("urgent"))
    await orchestrator.status("urgent", "running")
    changed = await jobs(orchestrator, "priority", job_id, "10", "--json")
    assert changed.json["priority"] == 10

    async def waits_with_10() -> bool:
        waiting = (await orchestrator.http.get("/queue", params={"limit": 1000})).json()["waiting"]
        return [one["priority"] for one in waiting if one["job_id"] == job_id] == [10]

    await until(waits_with_10)
    assert (await orchestrator.http.post(f"/training/{job_id}/priority", json={"priority": 101})).status_code == 422
    assert (await jobs(orchestrator, "priority", job_id, "101")).code == 2


async def test_an_event_does_the_same_and_an_unknown_control_is_refused_as_a_fact(orchestrator: Orchestrator) -> None:
    job_id = await failed(orchestrator, "by-event")
    for control in ("dance", "retry"):
        data = JobControlRequested(job_id=job_id, control=control, requester="relaycore")
        await orchestrator.publish(outside_event("relaycore", data, correlation_id=job_id))
    await orchestrator.status("by-event", "running")

    async def refused() -> bool:
        return any(e.type == "JobControlRefused" and e.correlation_id == job_id for e in await orchestrator.log())

    await until(refused)
