"""`serve` runs one service as a deployment does: ready on its own, small, drained on SIGTERM, exit code 0."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import psutil
import pytest

from services.cli.listening import listen
from services.devstack.stack import DevStack

_LIGHT_MB = 200
"""About 110 MB on an empty log; more after large records that other tests left there. A process that imports torch and
transformers begins at 500."""


@pytest.mark.parametrize("service", ["orchestrator", "registry"])
def test_a_light_service_is_ready_small_and_drains_on_sigterm(service: str, own_stack: DevStack, tmp_path: Path) -> None:
    """On a log on which it has not spoken: else it would first be restored from all that other tests left there."""
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "NEUROWEAVER_KAFKA_BOOTSTRAP": own_stack.kafka_bootstrap,
        "NEUROWEAVER_DATABASE_URL": own_stack.database_url,
        "NEUROWEAVER_HOME": str(tmp_path),
        "NEUROWEAVER_HTTP_PORT": str(port),
    }
    with (tmp_path / "service.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.cli.main", "serve", service], env=environment, stderr=log
        )
    try:
        wait_ready(process, f"http://127.0.0.1:{port}/api/v1/health/ready")
        resident = psutil.Process(process.pid).memory_info().rss / 1e6
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()
    assert resident < _LIGHT_MB
    events = [json.loads(line)["event"] for line in (tmp_path / "service.log").read_text().splitlines()]
    assert events.index("draining") < events.index("stopped")


def wait_ready(process: "subprocess.Popen[bytes]", url: str, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        assert process.poll() is None, "the service ended while it started"
        try:
            if httpx2.get(url, timeout=30).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)
