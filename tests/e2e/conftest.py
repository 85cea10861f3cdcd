"""One system for all end-to-end tests: a stack of its own, since the services' names are fixed."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from services.devstack.settings import DevStackSettings
from services.devstack.stack import running
from tests.conftest import create_topics
from tests.e2e.system import System, running_system


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Run four ready service processes with a tiny base model."""
    home = tmp_path_factory.mktemp("system")
    subprocess.run([sys.executable, "-m", "tests.tiny_model", str(home / "tiny")], check=True)
    settings = DevStackSettings(home=home / "stack", kafka_bootstrap=None, database_url=None)
    with running(settings) as stack:
        create_topics(stack)
        with running_system(stack, home, home / "tiny") as system:
            yield system


@pytest.fixture(scope="session")
async def requested(system: System) -> dict[str, Any]:
    """Return a request that was published on Kafka."""
    request = system.request()
    await system.publish(request)
    return request


@pytest.fixture(scope="session")
def finished(system: System, requested: dict[str, Any]) -> dict[str, Any]:
    """Return its completed job, for tests that only check the result."""
    return system.wait_job(requested["job_id"])
