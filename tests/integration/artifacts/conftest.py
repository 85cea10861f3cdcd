"""Every kind of store: a local folder, memory, and S3 as moto's server speaks it."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from moto.server import ThreadedMotoServer


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


@pytest.fixture(params=["local", "file", "memory", "s3"])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URI of an empty store."""
    match request.param:
        case "local":
            return str(tmp_path / "store")
        case "file":
            return f"file://{tmp_path / 'store'}"
        case "memory":
            return f"memory://{uuid4().hex}"
        case _:
            return f"{request.getfixturevalue('s3')}/{uuid4().hex}"
