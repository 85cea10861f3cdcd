"""A toy service of its own for every test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.toy import Toy


@pytest.fixture
async def toy(kafka: str, database_url: str, tmp_path: Path) -> AsyncIterator[Toy]:
    toy = Toy(kafka, database_url, tmp_path)
    await toy.create()
    yield toy
    await toy.engine.dispose()
