"""A toy service of its own for every test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.devstack.stack import DevStack
from tests.toy import Toy


@pytest.fixture
def servers(kafka: str, dev_stack: DevStack) -> DevStack:
    """Return the servers of the toy service; a module whose tests change the servers or their topics overrides this with
    `own_stack`."""
    assert kafka == dev_stack.kafka_bootstrap
    return dev_stack


@pytest.fixture
async def toy(servers: DevStack, tmp_path: Path) -> AsyncIterator[Toy]:
    toy = Toy(servers.kafka_bootstrap, servers.database_url, tmp_path)
    await toy.create()
    yield toy
    await toy.transactions.close()
    await toy.engine.dispose()
