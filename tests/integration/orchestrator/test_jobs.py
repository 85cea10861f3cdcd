"""A job asked for over Kafka or over HTTP takes the same way; no id is taken twice; nothing is lost when it is faulty."""

from typing import Any

from schemas.envelope import Event, wire_data
from schemas.jobs import JobRejected, StepRequested
from schemas.requests import JobCancelRequested
from schemas.topics import JOBS, REQUESTS
from services.chassis.kafka.publisher import outside_event
from tests.orchestrator import Orchestrator
from tests.toy import until


async def of_job(orchestrator: Orchestrator, name: str, topic: str = JOBS.name) -> list[Event]:
    job_id = orchestrator.prefix + name
    return [event for event in await orchestrator.log(topic) if event.data.job_id == job_id]  # type: ignore[attr-defined]


async def test_a_job_started_over_http_is_the_same_as_one_requested_over_kafka(orchestrator: Orchestrator) -> None:
    await orchestrator.ask(orchestrator.request("same-kafka"))
    answer = await orchestrator.http.post("/training/start", json=orchestrator.request("same-http"))
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/v1/training/{orchestrator.prefix}same-http"
    assert answer.json()["status"] == "running"
    await orchestrator.status("same-kafka", "running")

    def alike(view: dict[str, Any]) -> dict[str, Any]:
        ids = ("job_id", "requested_at", "accepted_at", "updated_at")
        steps = [{**step, "attempts": len(step["attempts"])} for step in view["steps"]]
        request = {**view["request"], "job_id": None}
        return {**{k: v for k, v in view.items() if k not in ids}, "steps": steps, "request": request}

    assert alike(await orchestrator.job("same-kafka")) == alike(await orchestrator.job("same-http"))
    (kafka,) = await of_job(orchestrator, "same-kafka", REQUESTS.name)
    (http,) = await of_job(orchestrator, "same-http", REQUESTS.name)
    assert wire_data(http.data) == wire_data(kafka.data).replace("same-kafka", "same-http")
    assert (http.source, http.subject) == ("neuroweaver/edge", orchestrator.prefix + "same-http")


async def test_a_job_goes_its_way_to_the_registered_version(orchestrator: Orchestrator) -> None:
    job_id = orchestrator.prefix + "whole"
    await orchestrator.ask(orchestrator.request("whole"))
    await orchestrator.complete(job_id, "prepare", "train", "register")
    job = await orchestrator.status("whole", "completed")
    assert (job["model"], job["version"]) == ("router", "1.0.0")
    assert [step["status"] for step in job["steps"]] == ["completed"] * 3
    history = [event for event in await of_job(orchestrator, "whole") if event.source == orchestrator.source]
    assert [event.type for event in history] == ["JobAccepted.v2", *["StepRequested.v2"] * 3, "JobCompleted"]
    assert [event.sequence for event in history] == [1, 2, 3, 4, 5]
    train = history[2].data
    assert isinstance(train, StepRequested)
    assert set(train.inputs) == {"dataset"}


async def test_a_lost_attempt_is_tried_again_and_a_users_fault_fails_the_job_with_its_last_lines(
    orchestrator: Orchestrator,
) -> None:
    job_id = orchestrator.prefix + "faulty"
    await orchestrator.ask(orchestrator.request("faulty"))
    await until(lambda: orchestrator.asked(job_id, "prepare"))
    await orchestrator.fail(job_id, "prepare", 1, cause="infrastructure")
    await until(lambda: orchestrator.asked(job_id, "prepare", 2))
    await orchestrator.fail(job_id, "prepare", 2, cause="user")
    job = await orchestrator.status("faulty", "failed")
    assert job["failure"]["step"] == "prepare"
    assert job["failure"]["fault"]["log_tail"] == ["first line", "last line"]
    prepare, train, register = job["steps"]
    assert [attempt["outcome"] for attempt in prepare["attempts"]] == ["failed", "failed"]
    assert prepare["attempts"][1]["not_before"] is not None
    assert [train["status"], register["status"]] == ["skipped", "skipped"]


async def test_the_same_request_again_is_the_same_job(orchestrator: Orchestrator) -> None:
    request = orchestrator.request("twice")
    first = await orchestrator.http.post("/training/start", json=request)
    again = await orchestrator.http.post("/training/start", json=dict(reversed(request.items())))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    before = await orchestrator.job("twice")
    await orchestrator.ask(request)
    await orchestrator.ask(orchestrator.request("twice-marker"))
    await orchestrator.status("twice-marker", "running")
    assert len(await of_job(orchestrator, "twice", REQUESTS.name)) == 2
    assert (await orchestrator.job("twice"))["sequence"] == before["sequence"]
    assert (await orchestrator.job("twice"))["conflicts"] == []


async def test_another_request_under_a_taken_id_is_409_over_http_and_recorded_over_kafka(
    orchestrator: Orchestrator,
) -> None:
    await orchestrator.ask(orchestrator.request("taken"))
    await orchestrator.status("taken", "running")
    answer = await orchestrator.http.post("/training/start", json=orchestrator.request("taken", priority=3))
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert "new job_id" in answer.json()["detail"]
    assert len(await of_job(orchestrator, "taken", REQUESTS.name)) == 1
    other = await orchestrator.ask(orchestrator.request("taken", priority=3))
    await until(lambda: _conflicts(orchestrator, "taken", [other.id]))
    assert (await orchestrator.job("taken"))["status"] == "running"
    assert [event.type for event in await of_job(orchestrator, "taken")] == ["JobAccepted.v2", "StepRequested.v2"]


async def test_a_faulty_request_is_refused_in_the_same_words_and_its_id_stays_refused(orchestrator: Orchestrator) -> None:
    faulty = orchestrator.request("refused", pipeline="magic", training={"optimiser": {"steps": -1}})
    answer = await orchestrator.http.post("/training/start", json=faulty)
    assert answer.status_code == 422
    assert {reason["field"] for reason in answer.json()["reasons"]} == {"pipeline", "training.optimiser.steps"}
    assert (await orchestrator.job("refused"))["status"] is None
    await orchestrator.ask(faulty)
    job = await orchestrator.status("refused", "rejected")
    assert job["reasons"] == answer.json()["reasons"]
    assert job["sent"]["pipeline"] == "magic"
    assert job["request"] is None
    (rejected,) = await of_job(orchestrator, "refused")
    assert isinstance(rejected.data, JobRejected)

    again = await orchestrator.http.post("/training/start", json=faulty)
    assert (again.status_code, again.json()["title"]) == (422, "The job was rejected")
    corrected = await orchestrator.http.post("/training/start", json=orchestrator.request("refused"))
    assert corrected.status_code == 409
    await orchestrator.ask(orchestrator.request("refused"))
    await until(lambda: _conflicts(orchestrator, "refused", None))
    assert (await orchestrator.job("refused"))["status"] == "rejected"


async def test_a_request_that_upsets_validators_is_rejected_and_the_rest_flows(orchestrator: Orchestrator) -> None:
    rule: dict[str, Any] = {"name": "x", "kind": "regex", "pattern": "a{99999999999999999999}"}
    for _ in range(60):
        rule = {"name": "x", "kind": "any_of", "rules": [rule]}
    await orchestrator.ask(orchestrator.request("odd", evaluation={"rules": [rule]}, requester="\x00"))
    await orchestrator.ask(orchestrator.request("odd-marker"))
    await orchestrator.status("odd-marker", "running")
    job = await orchestrator.status("odd", "rejected")
    assert any("NUL" in reason["message"] for reason in job["reasons"])


async def test_an_id_with_odd_characters_is_rejected_and_can_be_asked_for(orchestrator: Orchestrator) -> None:
    odd = orchestrator.request("späte ünd\u2028ödd")
    await orchestrator.ask(odd)
    job = await orchestrator.status("späte ünd\u2028ödd", "rejected")
    assert job["reasons"][0]["field"] == "job_id"
    again = await orchestrator.http.post("/training/start", json=odd)
    assert (again.status_code, again.json()["reasons"]) == (422, job["reasons"])


async def test_a_cancel_that_comes_before_its_request_is_honoured(orchestrator: Orchestrator) -> None:
    job_id = orchestrator.prefix + "early"
    cancel = JobCancelRequested(job_id=job_id, requester="relaycore", reason="never mind")
    await orchestrator.publish(outside_event("relaycore", cancel, correlation_id=job_id))
    await orchestrator.ask(orchestrator.request("early"))
    job = await orchestrator.status("early", "cancelled")
    assert [event.type for event in await of_job(orchestrator, "early")] == ["JobAccepted.v2", "JobCancelled"]
    assert job["cancel"]["reason"] == "never mind"
    assert {step["status"] for step in job["steps"]} == {"skipped"}


async def test_a_cancel_waits_for_running_steps_but_not_longer_than_its_grace(orchestrator: Orchestrator) -> None:
    for name in ("obedient", "deaf"):
        await orchestrator.ask(orchestrator.request(name))
        await until(lambda name=name: orchestrator.asked(orchestrator.prefix + name, "prepare"))
        await orchestrator.start(orchestrator.prefix + name, "prepare")
        answer = await orchestrator.http.post(f"/training/{orchestrator.prefix}{name}/cancel", json={"reason": "enough"})
        assert answer.status_code == 202
        assert answer.json()["status"] == "cancelling"
    await orchestrator.stop(orchestrator.prefix + "obedient", "prepare")
    job = await orchestrator.status("obedient", "cancelled")
    assert job["steps"][0]["attempts"][0]["closed"] == "cancel"
    assert (await orchestrator.job("deaf"))["status"] == "cancelling"
    await orchestrator.status("deaf", "cancelled")


async def _conflicts(orchestrator: Orchestrator, name: str, ids: list[str] | None) -> bool:
    conflicts = (await orchestrator.job(name))["conflicts"]
    return bool(conflicts) if ids is None else conflicts == ids
