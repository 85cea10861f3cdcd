"""Callers get answers of vLLM servers through the one address, by canary and back, and through the restart of a server.

The server is a stand-in that speaks vLLM's API (`tests.vllm_stand_in`).
"""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from services.registry.deploying.drivers import Drivers
from services.registry.deploying.remote.driver import Pace
from services.registry.deploying.settings import ServingSettings
from services.registry.deploying.vllm.backend import vllm_driver
from services.registry.deploying.vllm.client import Patience
from tests.deploying import call_is_answered, calling, deploy, question, registered, serves, shown, told
from tests.model_servers import StandIn
from tests.registry import Registry
from tests.toy import until
from tests.vllm_servers import VllmProcess

KEY = "a-key-of-the-operator"
CANARY = {
    "strategy": "canary",
    "steps": [50],
    "step_seconds": 0,
    "least_requests": 5,
    "slower_by": 1000,
    "bake_seconds": 600,
}


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> VllmProcess:
    return VllmProcess(tmp_path_factory.mktemp("vllm"), key=KEY)


@pytest.fixture(scope="module")
async def registry(
    kafka: str, database_url: str, tmp_path_factory: pytest.TempPathFactory, vllm: VllmProcess
) -> AsyncIterator[Registry]:
    vllm.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_KEY_OF_TEST", KEY)
        servers = tuple(
            vllm.server(base_model=job, serves="base", api_key_variable="VLLM_KEY_OF_TEST") for job in ("job-1", "job-2")
        )
        serving = ServingSettings(driver="vllm", vllm=servers)

        def driver() -> Drivers:
            quick = vllm_driver(made.settings, Patience(between=0.05), Pace(0.05, 0.1))
            return Drivers({"local": StandIn(), "vllm": quick})

        made = Registry(kafka, database_url, tmp_path_factory.mktemp("registry"), driver, serving)
        async with made.running():
            yield made
    vllm.kill()


async def test_a_canary_on_vllm_gets_to_all_callers_and_back_and_a_server_that_restarts_fails_no_request(
    registry: Registry, vllm: VllmProcess, tmp_path: Path
) -> None:
    await registered(registry, "job-1", "job-2")
    name, model = registry.job("support"), registry.name("router")
    assert (await deploy(registry, "1.0.0"))["driver"] == "vllm"
    await serves(registry, "1.0.0")
    await until(lambda: call_is_answered(registry, name))
    async with calling(registry) as callers:
        await deploy(registry, "2.0.0", rollout=CANARY)
        await serves(registry, "2.0.0")
        await until(lambda: callers.last == "2.0.0")
        vllm.kill()
        vllm.start()
        before = callers.versions["2.0.0"]
        await until(lambda: callers.versions["2.0.0"] > before + 20)
        back = await registry.http.post(f"/deployments/{name}/rollback", json={"reason": "Worse."})
        assert back.status_code == 200
        await until(lambda: callers.last == "1.0.0")
    assert callers.failed == []
    assert told(registry)[:5] == ["Requested 1.0.0", "Ready 1.0.0", "Requested 2.0.0", "Advanced 2.0.0", "Advanced 2.0.0"]

    secret = {"authorization": "Bearer of-a-caller", "x-caller": "ana"}
    answer = await registry.callers.post("/chat/completions", json=question(name), headers=secret)
    assert (answer.headers["x-neuroweaver-version"], answer.json()["model"]) == (f"{model}@1.0.0",) * 2
    assert answer.json()["id"] == answer.headers["x-neuroweaver-response"] != "chatcmpl-vllm"
    async with registry.callers.stream("POST", "/chat/completions", json=question(name, stream=True)) as stream:
        lines = [line async for line in stream.aiter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(f'"model":"{model}@1.0.0"' in line for line in lines[:-1])
    asked = vllm.asked("/v1/chat/completions")
    assert {one["headers"]["authorization"] for one in asked} == {f"Bearer {KEY}"}
    assert not any("x-caller" in one["headers"] for one in asked)
    assert asked[-1]["asked"]["model"].startswith(f"neuroweaver/{model}@1.0.0:")
    view = await registry.http.get(f"/deployments/{name}")
    assert KEY not in view.text
    assert await registry.differences() == 0


async def test_a_driver_that_is_not_configured_is_refused_and_another_can_be_chosen_for_one_deployment(
    registry: Registry,
) -> None:
    registry.begin()
    await registered(registry, "job-1")
    body = {"name": registry.job("support"), "model": f"{registry.name('router')}@1.0.0"}
    refused = await registry.http.post("/deployments", json={**body, "driver": "kserve"})
    assert (refused.status_code, "NEUROWEAVER_SERVING_KSERVE" in refused.text) == (409, True)
    assert (await registry.http.post("/deployments", json={**body, "driver": "slurm"})).status_code == 422
    await deploy(registry, "1.0.0", driver="local")
    await serves(registry, "1.0.0")
    assert (await shown(registry))["driver"] == "local"
    await deploy(registry, "1.0.0", driver="vllm")
    await serves(registry, "1.0.0")
    assert ((await shown(registry))["generation"], (await shown(registry))["driver"]) == (2, "vllm")
    assert httpx2.codes.is_success((await registry.http.delete(f"/deployments/{registry.job('support')}")).status_code)
