"""One orchestrator for the tests of a module; each test uses jobs of its own."""

from collections.abc import AsyncIterator

import pytest

from tests.orchestrator import Orchestrator


@pytest.fixture(scope="module")
async def orchestrator(
    kafka: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Orchestrator]:
    async with Orchestrator(kafka, database_url, tmp_path_factory.mktemp("orchestrator")).running() as running:
        yield running
