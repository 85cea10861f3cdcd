"""Deployments on real Kafka and PostgreSQL: callers get answers whatever is rolled out, and the log says what happened.

What serves is a stand-in with real sockets (`tests.model_servers`); it holds no model.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from schemas.deployments import DeploymentRequested, DeploymentRolledBack
from schemas.latest import ModelChanged
from schemas.topics import LATEST
from services.registry.domain.deployments import deciding
from tests.command import Ended, run
from tests.deploying import call, call_is, call_is_answered, calling, deploy, question, registered, serves, shown, told
from tests.log import event_of
from tests.model_servers import Behaviour, StandIn
from tests.registry import Registry, tail
from tests.toy import until


@pytest.fixture(scope="module")
def driver() -> StandIn:
    return StandIn()


@pytest.fixture(scope="module")
async def running(
    kafka: str, database_url: str, tmp_path_factory: pytest.TempPathFactory, driver: StandIn
) -> AsyncIterator[Registry]:
    async with Registry(kafka, database_url, tmp_path_factory.mktemp("registry"), lambda: driver).running() as registry:
        yield registry


@pytest.fixture
def registry(running: Registry, driver: StandIn) -> Registry:
    """The one that runs, with names of this test's own, and a driver that behaves."""
    running.begin()
    driver.behaviours.clear()
    driver.garbage = None
    return running


async def test_a_version_is_deployed_by_its_alias_and_answers_at_the_one_address_under_all_its_names(
    registry: Registry,
) -> None:
    latest = await tail(registry.settings.kafka_bootstrap, LATEST.name)
    await registered(registry, "job-1")
    name, model = registry.job("support"), registry.name("router")
    assert (await call(registry)).status_code == 404
    view = await deploy(registry, "candidate")
    assert (view["generation"], view["target"]["version"], view["target"]["alias"]) == (1, "1.0.0", "candidate")
    await serves(registry, "1.0.0")
    for asked in (name, f"{model}@1.0.0", f"{model}@candidate"):
        await until(lambda: call_is_answered(registry, asked))  # noqa: B023 (awaited before the next turn)
        answer = await call(registry, asked)
        assert answer.headers["x-neuroweaver-version"] == f"{model}@1.0.0"
        assert answer.headers["x-neuroweaver-response"] == answer.json()["id"] != "its-own"
        assert answer.json()["choices"][0]["message"]["content"] == f"{model}@1.0.0 hears Hello"
    listed = (await registry.callers.get("/models")).json()["data"]
    assert {one["id"] for one in listed if one["owned_by"] == name} == {name, f"{model}@1.0.0", f"{model}@candidate"}
    assert [one["name"] for one in (await registry.http.get("/deployments")).json()["items"] if one["name"] == name] == [
        name
    ]
    metrics = (await registry.http.get("/metrics")).text
    assert f'neuroweaver_deployment_requests_total{{deployment="{name}",outcome="answered"}} ' in metrics
    assert f'neuroweaver_deployment_tokens_total{{deployment="{name}",kind="completion"}} ' in metrics

    state = await state_when(latest, model, lambda state: serving(state) == "1.0.0")
    assert state.aliases == {"candidate": "1.0.0"}
    retired = await registry.http.delete(f"/deployments/{name}?by=ana&reason=Done.")
    assert retired.json()["version"] is None
    await until(lambda: call_is(registry, name, 404))
    assert (await registry.http.delete(f"/deployments/{name}")).status_code == 409
    await until(lambda: told(registry) == ["Requested 1.0.0", "Ready 1.0.0", "Retired 1.0.0"], what=lambda: told(registry))
    assert name not in (await registry.http.get("/metrics")).text
    state = await state_when(latest, model, lambda state: not state.deployments)
    assert (state.version, state.aliases) == ("1.0.0", {"candidate": "1.0.0"})
    await latest.stop()


def serving(state: ModelChanged) -> str | None:
    """Return the version that the model's first deployment serves."""
    return state.deployments[0].version if state.deployments else None


async def state_when(consumer: AIOKafkaConsumer, model: str, wanted: Callable[[ModelChanged], bool]) -> ModelChanged:
    """Return the first published state of a model that is as wanted. A state in between may never be published."""
    while True:
        event = event_of(await asyncio.wait_for(consumer.getone(), 120))
        if event is not None and isinstance(event.data, ModelChanged) and event.data.model == model and wanted(event.data):
            return event.data


async def test_what_is_archived_is_not_deployed_and_what_is_deployed_is_not_archived(registry: Registry) -> None:
    await registered(registry, "job-1", alias=None)
    name, model = registry.job("support"), registry.name("router")
    archived = {"state": "archived", "reason": "It is old."}
    await deploy(registry, "1.0.0")
    await serves(registry, "1.0.0")
    used = await registry.http.put(f"/models/{model}@1.0.0/state", json=archived)
    assert (used.status_code, used.json()["reasons"][0]["value"]) == (409, f"'deployment {name}'")
    assert (await registry.http.delete(f"/deployments/{name}")).status_code == 200
    assert (await registry.http.put(f"/models/{model}@1.0.0/state", json=archived)).status_code == 200
    again = await registry.http.post("/deployments", json={"name": name, "model": f"{model}@1.0.0"})
    assert (again.status_code, "is archived: It is old." in again.text) == (409, True)


async def test_no_request_fails_while_versions_follow_each_other_or_never_get_ready(
    registry: Registry, driver: StandIn
) -> None:
    await registered(registry, "job-1", "job-2", "job-3")
    driver.of("3.0.0").state, driver.of("3.0.0").reason = "starting", "Loading"
    await deploy(registry, "1.0.0")
    await serves(registry, "1.0.0")
    async with calling(registry) as callers:
        await deploy(registry, "2.0.0", rollout={"bake_seconds": 0})
        await serves(registry, "2.0.0")
        await until(lambda: callers.last == "2.0.0")
        await deploy(registry, "3.0.0", rollout={"deadline_seconds": 1})
        await until(lambda: "RolledBack 3.0.0" in told(registry))
        before = callers.versions["2.0.0"]
        await until(lambda: callers.versions["2.0.0"] > before + 20)
        driver.behaviours["3.0.0"].state = "ready"
        await until(lambda: retried(registry, "3.0.0"))
        await until(lambda: callers.last == "3.0.0")
    assert callers.failed == []
    assert set(callers.versions) == {"1.0.0", "2.0.0", "3.0.0"}
    await until(lambda: told(registry)[-1] == "Ready 3.0.0")
    assert told(registry)[2:7] == [
        "Requested 2.0.0", "Ready 2.0.0", "Requested 3.0.0", "RolledBack 3.0.0", "Requested 3.0.0",
    ]  # fmt: skip
    back = next(event.data for event in registry.said if event.type == "DeploymentRolledBack")
    assert isinstance(back, DeploymentRolledBack)
    assert (back.to_version, back.reason) == ("2.0.0", "ProgressDeadlineExceeded")


async def retried(registry: Registry, version: str) -> bool:
    """Try again what was given up, until it serves: the deadline of this wish is short, and the machine may be slow."""
    view = await shown(registry)
    if view["target"] is None and view["version"] != version:
        asked = {"by": "ana", "reason": "Now."}
        again = await registry.http.post(f"/deployments/{registry.job('support')}/retry", json=asked)
        assert again.json()["generation"] == view["generation"] + 1
    return bool(view["version"] == version)


async def test_a_deployment_follows_its_alias_there_and_back_at_once(registry: Registry) -> None:
    await registered(registry, "job-1")
    await deploy(registry, "candidate", follow=True)
    await serves(registry, "1.0.0")
    path = f"/models/{registry.name('router')}/aliases/candidate"
    async with calling(registry, 2) as callers:
        await registered(registry, "job-2")
        await serves(registry, "2.0.0")
        await until(lambda: callers.last == "2.0.0")
        assert (await registry.http.post(f"{path}/rollback", json={"reason": "Worse."})).status_code == 200
        assert (await registry.http.put(path, json={"version": "2.0.0"})).status_code == 200
        assert (await registry.http.post(f"{path}/rollback", json={"reason": "Worse."})).status_code == 200
        await serves(registry, "1.0.0")
        await until(lambda: callers.last == "1.0.0")
    assert callers.failed == []
    followed = [event.data for event in registry.said if isinstance(event.data, DeploymentRequested)]
    of_this = [one for one in followed if one.deployment == registry.job("support")]
    assert {one.by for one in of_this[1:]} == {f"{registry.name('router')}@candidate"}
    assert all(one.follow and one.alias == "candidate" for one in of_this)
    removed = await registry.http.delete(path)
    assert removed.status_code == 200
    await serves(registry, "1.0.0")


async def test_a_server_that_dies_is_told_and_callers_get_the_version_that_is_still_warm(
    registry: Registry, driver: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deciding, "GRACE_SECONDS", 0.2)
    await registered(registry, "job-1", "job-2")
    await deploy(registry, "1.0.0")
    await serves(registry, "1.0.0")
    await deploy(registry, "2.0.0")
    await serves(registry, "2.0.0")
    async with calling(registry, 2) as callers:
        await until(lambda: callers.last == "2.0.0")
        fail(driver, "2.0.0")
        await until(lambda: "RolledBack 2.0.0" in told(registry))
        await serves(registry, "1.0.0")
        await until(lambda: callers.last == "1.0.0")
        view = await shown(registry)
        assert (view["given_up"]["reason"], view["given_up"]["generation"]) == ("NotAnswering", 2)
    assert callers.failed == []
    assert told(registry)[4:] == ["RolledBack 2.0.0"]

    fail(driver, "1.0.0")
    await until(lambda: "Degraded 1.0.0" in told(registry))
    degraded = {one["type"]: one for one in (await shown(registry))["conditions"]}["Degraded"]
    assert (degraded["status"], degraded["reason"], degraded["observed_generation"]) == ("True", "NotAnswering", 1)
    assert (await call(registry)).status_code == 503
    driver.behaviours["1.0.0"] = Behaviour()
    for slot in driver.slots.values():
        slot.server.behaviour = Behaviour()
    await serves(registry, "1.0.0")
    await until(lambda: told(registry)[5:] == ["Degraded 1.0.0", "Ready 1.0.0"], what=lambda: told(registry))


def fail(driver: StandIn, version: str) -> None:
    """Let the servers of a version answer no more."""
    how = driver.behaviours[version]
    how.state, how.reason, how.status = "failed", "NotAnswering", 503


QUICK = {
    "strategy": "canary",
    "steps": [10, 50],
    "step_seconds": 0,
    "least_requests": 5,
    "slower_by": 1000,
    "bake_seconds": 0,
}


async def test_a_canary_gets_to_all_callers_by_steps_and_a_worse_one_goes_back_by_itself_with_the_evidence(
    registry: Registry, driver: StandIn
) -> None:
    await registered(registry, "job-1", "job-2", "job-3", "job-4")
    await deploy(registry, "1.0.0")
    await serves(registry, "1.0.0")
    driver.of("3.0.0").status, driver.of("4.0.0").says = 500, ""
    async with calling(registry) as callers:
        await deploy(registry, "2.0.0", rollout=QUICK)
        await serves(registry, "2.0.0")
        for number, version in ((2, "3.0.0"), (3, "4.0.0")):
            before = callers.versions["2.0.0"]
            await deploy(registry, version, rollout=QUICK)
            await until(lambda: f"RolledBack {version}" in told(registry), what=lambda: told(registry))  # noqa: B023
            await until(lambda: callers.versions["2.0.0"] > before + 20)  # noqa: B023 (awaited before the next turn)
            assert (await shown(registry))["generation"] == number + 1
    assert callers.failed == []
    assert callers.versions["3.0.0"] == 0
    assert told(registry)[2:7] == ["Requested 2.0.0", "Advanced 2.0.0", "Advanced 2.0.0", "Advanced 2.0.0", "Ready 2.0.0"]
    back = [event.data for event in registry.said if isinstance(event.data, DeploymentRolledBack)]
    why = {one.version: one for one in back if one.deployment == registry.job("support")}
    for version, check in (("3.0.0", "error_rate"), ("4.0.0", "empty_rate")):
        analysis = why[version].analysis
        assert analysis is not None
        assert why[version].reason == "AnalysisFailed"
        assert [one.name for one in analysis.checks if one.verdict == "failed"] == [check]


async def test_a_canary_that_nobody_asks_is_given_up_or_advanced_by_a_person_by_command(
    registry: Registry, tmp_path: Path
) -> None:
    await registered(registry, "job-1", "job-2")
    name, two = registry.job("support"), f"{registry.name('router')}@2.0.0"

    async def deployments(*arguments: str) -> Ended:
        return await run(str(registry.http.base_url).removesuffix("/api/v1/"), "deployments", *arguments)

    created = await deployments("create", name, f"{registry.name('router')}@1.0.0", "--by", "ana")
    assert created.code == 0, created.err
    await serves(registry, "1.0.0")
    await deploy(registry, "2.0.0", rollout={**QUICK, "deadline_seconds": 1})
    await until(lambda: "RolledBack 2.0.0" in told(registry), what=lambda: told(registry))
    assert (await shown(registry))["given_up"]["reason"] in ("AnalysisInconclusive", "ProgressDeadlineExceeded")
    shadow = tmp_path / "shadow.yaml"
    shadow.write_text("share: 0.5\nfeedback: {judge: {kind: openai, model: j, endpoint: 'https://judge.example/v1'}}\n")
    steps = ("--canary", "--step", "10", "--step", "50", "--step-seconds", "0")
    again = await deployments("create", name, two, *steps, "--shadow", str(shadow))
    assert (await shown(registry))["rollout"]["shadow"]["share"] == 0.5
    assert "2.0.0" in again.out
    await until(lambda: told(registry)[-1] == "Advanced 2.0.0")
    for percent in (50, 100, None):
        advanced = await deployments("advance", name, "--reason", "Few ask it.", "--by", "ana", "--json")
        assert advanced.json["percent"] == percent
    await serves(registry, "2.0.0")
    none = await deployments("advance", name, "--reason", "r")
    assert (none.code, "no canary" in none.err) == (1, True)
    assert (await deployments("show", "nobody")).code == 4
    listed, history = await deployments("list"), await deployments("show", name)
    assert name in listed.out
    assert "Few ask it." in history.out
    assert (await deployments("retire", name, "--reason", "Done.")).code == 0


FOR_GOOD, FOR_NOW = ("DigestMismatch", "EmptyAnswer"), ("FilesUnavailable", "PortTaken")


async def test_whatever_is_wrong_with_a_version_callers_stay_with_the_one_before_and_the_rows_are_what_the_log_says(
    registry: Registry, driver: StandIn
) -> None:
    await registered(registry, "job-1", "job-2")
    await deploy(registry, "1.0.0")
    await serves(registry, "1.0.0")
    async with calling(registry, 2) as callers:
        for generation, reason in enumerate((*FOR_GOOD, *FOR_NOW), 2):
            driver.of("2.0.0").state, driver.of("2.0.0").reason = "failed", reason
            await deploy(registry, "2.0.0", rollout={"deadline_seconds": 600 if reason in FOR_GOOD else 1})
            await until(lambda: given_up(registry, generation))  # noqa: B023 (awaited before the next turn)
            view = await shown(registry)
            conditions = {one["type"]: (one["status"], one["reason"]) for one in view["conditions"]}
            why = reason if reason in FOR_GOOD else "ProgressDeadlineExceeded"
            assert conditions["Progressing"] == ("False", why)
            assert conditions["Degraded"] == ("False", "AsWished")
            await serves(registry, "1.0.0")
        before = callers.versions.total()
        await until(lambda: callers.versions.total() > before + 20)
    assert (callers.failed, set(callers.versions)) == ([], {"1.0.0"})
    assert await registry.differences() == 0


async def given_up(registry: Registry, generation: int) -> bool:
    view = await shown(registry)
    return bool(view["given_up"] and view["given_up"]["generation"] == generation)


async def test_what_a_driver_says_wrongly_changes_no_answer(registry: Registry, driver: StandIn) -> None:
    await registered(registry, "job-1")
    await deploy(registry, "1.0.0")
    await serves(registry, "1.0.0")
    async with calling(registry, 2) as callers:
        for garbage in (ConnectionError("gone"), [None, 7], ["x"], RuntimeError("a fault")):
            driver.garbage, before = garbage, callers.versions.total()
            await until(lambda: callers.versions.total() > before + 20)  # noqa: B023 (awaited before the next turn)
        driver.garbage = None
        await serves(registry, "1.0.0")
    assert callers.failed == []
    assert told(registry)[:2] == ["Requested 1.0.0", "Ready 1.0.0"]


async def test_of_wishes_that_race_each_is_a_generation_and_a_stale_one_is_refused(registry: Registry) -> None:
    await registered(registry, "job-1", "job-2", "job-3")
    name = registry.job("support")
    await asyncio.gather(*(deploy(registry, f"{number}.0.0") for number in (1, 2, 3, 1, 2, 3)))
    view = await shown(registry)
    generations = [
        int(event.split()[0])
        for event in (f"{one['generation']}" for one in view["history"] if one["event"] == "DeploymentRequested")
    ]
    assert generations == sorted(set(generations), reverse=True)
    await serves(registry, view["history"][0]["version"] if view["target"] is None else view["target"]["version"])
    body = {"name": name, "model": f"{registry.name('router')}@1.0.0", "reason": "r"}
    old = await registry.http.post("/deployments", json=body, headers={"If-Match": '"1"'})
    assert old.status_code == 412
    current = (await registry.http.get(f"/deployments/{name}")).headers["etag"]
    assert (await registry.http.post("/deployments", json=body, headers={"If-Match": current})).status_code == 202
    await serves(registry, "1.0.0")
    other = registry.step("job-9", "other", registry.adapter("other"))
    await registry.ask(other)
    await registry.result(other)
    taken = await registry.http.post("/deployments", json={"name": name, "model": registry.name("other")})
    assert (taken.status_code, taken.json()["reasons"][0]["field"]) == (409, "model")
    nothing = await registry.http.post("/deployments", json={"name": name, "model": f"{registry.name('router')}@9.0.0"})
    assert nothing.status_code == 404
    elsewhere = await registry.http.post("/deployments", json={**body, "driver": "vllm"})
    assert (elsewhere.status_code, "NEUROWEAVER_SERVING_VLLM" in elsewhere.text) == (409, True)
    unfollowed = {**body, "follow": True}
    assert (await registry.http.post("/deployments", json=unfollowed)).status_code == 409
    assert (await registry.http.get("/deployments/nobody")).status_code == 404
    assert (await registry.http.delete("/deployments/nobody")).status_code == 404


async def test_a_stream_is_passed_on_piece_by_piece(registry: Registry, driver: StandIn) -> None:
    await registered(registry, "job-1")
    await deploy(registry, "1.0.0")
    await serves(registry, "1.0.0")
    await until(lambda: call_is_answered(registry, registry.job("support")))
    asked = question(registry.job("support"), stream=True)
    async with registry.callers.stream("POST", "/chat/completions", json=asked) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in answer.aiter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert len(lines) == 4
    assert all(answer.headers["x-neuroweaver-response"] in line for line in lines[:-1])
