"""One orchestrator for the tests of a module, each of which uses jobs of its own, and one server that speaks S3 for all."""

from collections.abc import AsyncIterator, Iterator

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from tests.orchestrator import Orchestrator


@pytest.fixture(scope="module")
async def orchestrator(
    kafka: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Orchestrator]:
    async with Orchestrator(kafka, database_url, tmp_path_factory.mktemp("orchestrator")).running() as running:
        yield running


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Return the URI of a bucket; s3fs finds server and keys in the environment, as in a deployment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3").mkdir("neuroweaver")
        yield "s3://neuroweaver"
    server.stop()
