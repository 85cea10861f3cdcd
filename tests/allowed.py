"""What jobs of tests may name: the folders that pytest makes, servers of the test's own on loopback, and buckets in memory."""

import os
import tempfile
from pathlib import Path

from services.chassis.storage.sources.allowed import AllowedSources

TEMPORARY = Path(os.environ.get("PYTEST_DEBUG_TEMPROOT") or tempfile.gettempdir()).resolve()

IN_TESTS = AllowedSources(
    folders=(TEMPORARY,),
    schemes=("http", "https", "s3", "memory"),
    hosts=("127.0.0.1",),
    hub=True,
    download_bytes=10**8,
    download_seconds=60.0,
)
