"""What these tests tell lies on a log of its own; a service that is restored from a history with a hole refuses to start."""

from collections.abc import Iterator

import pytest

from services.devstack.settings import DevStackSettings
from services.devstack.stack import running
from tests.conftest import create_topics


@pytest.fixture(scope="package")
def kafka(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> Iterator[str]:
    """Return the bootstrap address of a broker that no service uses; the topics of the catalogue exist."""
    settings = DevStackSettings(home=tmp_path_factory.mktemp("told"), kafka_bootstrap=None, database_url=database_url)
    with running(settings) as stack:
        create_topics(stack)
        yield stack.kafka_bootstrap
