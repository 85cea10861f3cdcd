"""An executor on the session's database server. Its tables are made once and emptied for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.executor import Executor


@pytest.fixture(scope="session")
async def prepared(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the name of an executor whose database has all tables."""
    executor = Executor(database_url, tmp_path_factory.mktemp("executor"))
    await executor.create()
    await executor.runtime.engine.dispose()
    return executor.name


@pytest.fixture
async def executor(database_url: str, prepared: str, tmp_path: Path) -> AsyncIterator[Executor]:
    executor = Executor(database_url, tmp_path, name=prepared)
    await executor.empty()
    yield executor
    await executor.runtime.engine.dispose()
