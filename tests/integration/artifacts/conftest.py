"""Every kind of store: a local folder, memory, and S3 as moto's server speaks it."""

from pathlib import Path
from uuid import uuid4

import pytest


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
