"""A rollout outlives the registry: it restarts, is rebuilt from the log, and goes on where it was."""

import pytest

from schemas.deployments import DeploymentReady
from services.chassis.replay import rebuild as replay
from tests.deploying import call, calling, deploy, registered, serves, shown
from tests.model_servers import StandIn
from tests.registry import Registry
from tests.toy import until


async def test_a_registry_that_restarts_or_is_rebuilt_in_a_rollout_finishes_it_and_replays_to_the_same_rows(
    kafka: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    driver = StandIn()
    registry = Registry(kafka, database_url, tmp_path_factory.mktemp("registry"), lambda: driver)
    async with registry.running():
        await registered(registry, "job-1", "job-2")
        await deploy(registry, "1.0.0")
        await serves(registry, "1.0.0")
        driver.of("2.0.0").state, driver.of("2.0.0").reason = "starting", "Loading"
        await deploy(registry, "2.0.0")
        await until(lambda: "2.0.0" in driver.ensured)
        async with calling(registry, 2) as callers:
            assert await registry.differences() == 0
            await replay.rebuild(registry.runtime().projection)
            assert (await shown(registry))["target"]["version"] == "2.0.0"
            before = callers.versions["1.0.0"]
            await until(lambda: callers.versions["1.0.0"] > before + 20)
        assert callers.failed == []
    assert driver.slots == {}
    async with registry.running():
        await answers_with(registry, "1.0.0")
        driver.behaviours["2.0.0"].state = "ready"
        await serves(registry, "2.0.0")
        await answers_with(registry, "2.0.0")
        assert await registry.differences() == 0
        await until(lambda: ready(registry) == ["1.0.0", "2.0.0"], what=lambda: ready(registry))


def ready(registry: Registry) -> list[str]:
    """Return the versions that were told to be ready, in order."""
    return [event.data.version for event in registry.said if isinstance(event.data, DeploymentReady)]


async def answers_with(registry: Registry, version: str) -> None:
    """Wait until the deployment of this test answers with a version."""

    async def done() -> bool:
        said: str = (await call(registry)).headers.get("x-neuroweaver-version", "")
        return said.endswith(f"@{version}")

    await until(done)
