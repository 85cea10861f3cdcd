"""Every integration test runs against one real Apache Kafka and one real PostgreSQL, started once for the session.

Tests share both: isolation is by fresh names (`unique`), which become databases, consumer groups, job ids and prefixes. A
test that stops or crashes a server asks for `own_stack`, an instance of its own.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from services.chassis.kafka import topics
from services.devstack.settings import DevStackSettings
from services.devstack.stack import DevStack, running
from tests import explored  # noqa: F401  # profiles have to be there before one is asked for

_TOGETHER = ("tests/e2e/", "tests/integration/audit/")
"""Folders whose tests share their own servers."""
_LONGEST = ("tests/faults/test_under_fire.py", "tests/e2e/", "tests/integration/audit/", "tests/simulation/")
"""The slowest tests, the slowest first."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In parallel runs start the slowest tests first, then all others in the order of their names, so that the processes
    end at about the same time."""
    if hasattr(config, "workerinput"):
        items.sort(
            key=lambda item: next((n for n, part in enumerate(_LONGEST) if item.nodeid.startswith(part)), len(_LONGEST))
        )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """In parallel runs distribute files in the order of their tests. pytest-xdist would start with files of many tests,
    which are quick."""
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    class ByServers(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return next((folder for folder in _TOGETHER if nodeid.startswith(folder)), nodeid.split("::", 1)[0])

    config.option.loadscopereorder = False
    return ByServers(config, log)


@pytest.fixture(scope="session")
def dev_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    """Run the session's stack; real servers named in the environment are used instead."""
    settings = DevStackSettings(home=tmp_path_factory.mktemp("stack"))
    with running(settings) as stack:
        yield stack


@pytest.fixture(scope="session")
def kafka(dev_stack: DevStack) -> str:
    """Return the bootstrap address of the session's broker; the topics of the catalogue exist."""
    create_topics(dev_stack)
    return dev_stack.kafka_bootstrap


@pytest.fixture(scope="session")
def database_url(dev_stack: DevStack) -> str:
    """Return the URL of the session's PostgreSQL server; tests create their own databases on it, see `unique`."""
    return dev_stack.database_url


@pytest.fixture(scope="session")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    """Run a second stack whose `kafka` and `postgres` a test may stop, kill and start again; it must leave both running."""
    settings = DevStackSettings(home=tmp_path_factory.mktemp("faults"), kafka_bootstrap=None, database_url=None)
    with running(settings) as stack:
        create_topics(stack)
        yield stack


def create_topics(stack: DevStack) -> None:
    """Create all topics of the catalogue in another thread, because this one may already run pytest-asyncio's loop."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(topics.apply(stack.cluster))).result()


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Return a function that makes names that no other test has: `unique("job")` gives `job-3f2a91c0`."""
    return lambda prefix: f"{prefix}-{uuid4().hex[:8]}"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a new home for a service or stack."""
    return tmp_path / "home"


@pytest.fixture(autouse=True, scope="session")
def _own_surroundings() -> None:
    """Hide the settings of the user who runs the tests, except real servers and the cache."""
    kept = {"NEUROWEAVER_KAFKA_BOOTSTRAP", "NEUROWEAVER_DATABASE_URL", "NEUROWEAVER_CACHE", "NEUROWEAVER_JAVA"}
    for name in [name for name in os.environ if name.startswith("NEUROWEAVER_") and name not in kept]:
        del os.environ[name]
