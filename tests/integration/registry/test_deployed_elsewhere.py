"""Callers get answers of vLLM servers and of KServe through the one address, by canary and back, and through the restart of a server.

Server and cluster are stand-ins (`tests.vllm_stand_in`, `tests.kubernetes_stand_in`).
"""

from collections.abc import AsyncIterator, Iterator

import pytest
import yaml

from services.registry.calling import forwarding
from services.registry.deploying.drivers import Drivers
from services.registry.deploying.kserve.backend import kserve_driver
from services.registry.deploying.remote.driver import Pace
from services.registry.deploying.remote.patience import Patience
from services.registry.deploying.settings import KserveSettings, ServingSettings
from services.registry.deploying.vllm.backend import vllm_driver
from services.registry.domain.deployments import deciding
from tests.command import run
from tests.deploying import call_is_answered, calling, deploy, question, registered, serves, shown, told
from tests.kubernetes_stand_in import Cluster
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
def cluster() -> Iterator[Cluster]:
    found = Cluster()
    yield found
    found.close()


@pytest.fixture(scope="module")
async def registry(
    kafka: str, database_url: str, tmp_path_factory: pytest.TempPathFactory, vllm: VllmProcess, cluster: Cluster
) -> AsyncIterator[Registry]:
    vllm.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_KEY_OF_TEST", KEY)
        servers = tuple(
            vllm.server(base_model=job, serves="base", api_key_variable="VLLM_KEY_OF_TEST") for job in ("job-1", "job-2")
        )
        home = tmp_path_factory.mktemp("registry")
        storage, bases = {str(home / "artifacts"): "pvc://artifacts"}, {"job-1": "hf://org/base"}
        kserve = KserveSettings(api=cluster.url, namespace="models", storage=storage, base_models=bases)
        serving = ServingSettings(driver="vllm", vllm=servers, kserve=kserve)

        def driver() -> Drivers:
            quick = made.settings, Patience(between=0.05), Pace(0.05, 0.1)
            return Drivers({"local": StandIn(), "vllm": vllm_driver(*quick), "kserve": kserve_driver(*quick)})

        made = Registry(kafka, database_url, home, driver, serving)
        async with made.running():
            yield made
    vllm.kill()


async def test_a_canary_on_vllm_gets_to_all_callers_and_back_and_a_server_that_restarts_fails_no_request(
    registry: Registry, vllm: VllmProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "PATIENCE_SECONDS", 120.0)  # however long the server takes to start on a busy machine
    monkeypatch.setattr(deciding, "GRACE_SECONDS", 120.0)
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
    begins = ["Requested 1.0.0", "Ready 1.0.0", "Requested 2.0.0", "Advanced 2.0.0", "Advanced 2.0.0"]
    await until(lambda: told(registry)[:5] == begins, what=lambda: told(registry))

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


async def test_a_deployment_moves_from_one_driver_to_another_and_says_what_it_applies_to_a_cluster(
    registry: Registry, cluster: Cluster
) -> None:
    registry.begin()
    await registered(registry, "job-1")
    name, model = registry.job("support"), registry.name("router")
    for generation, driver in enumerate(("local", "vllm", "kserve"), 1):
        await deploy(registry, "1.0.0", driver=driver)
        await serves(registry, "1.0.0")
        view = await shown(registry)
        assert (view["generation"], view["driver"]) == (generation, driver)
    await until(lambda: any(path.startswith("/openai/") for path in cluster.chatted))
    answer = await registry.callers.post("/chat/completions", json=question(name))
    assert answer.json()["model"] == f"{model}@1.0.0"
    rendered = await run(str(registry.http.base_url).removesuffix("/api/v1/"), "deployments", "render", name)
    (made,) = yaml.safe_load_all(rendered.out)
    assert made["spec"] == cluster.objects[made["metadata"]["name"]]["spec"]
    assert made["metadata"]["annotations"]["neuroweaver/version"] == "1.0.0"
    assert (await registry.http.get("/deployments/nobody/manifests")).status_code == 404
    assert (
        await registry.http.post("/deployments", json={"name": name, "model": f"{model}@1.0.0", "driver": "slurm"})
    ).status_code == 422
