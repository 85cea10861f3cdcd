"""A real MLflow server with a database of its own, which a test may end and start again."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx2

from tests.e2e.system import free_port

_SECONDS = 120


class MlflowServer:
    """The server that the package mlflow-skinny has, with its tracking store and its model registry."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def database(self) -> Path:
        """The file with everything that it keeps."""
        return self.home / "mlflow.db"

    def start(self) -> None:
        """Start it and wait until it answers."""
        store = f"sqlite:///{self.database}"
        environment = {
            **os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "_MLFLOW_SERVER_FILE_STORE": store,
            "_MLFLOW_SERVER_REGISTRY_STORE": store, "_MLFLOW_SERVER_ARTIFACT_ROOT": str(self.home / "artifacts"),
        }  # fmt: skip
        command = [sys.executable, "-m", "uvicorn", "mlflow.server.fastapi_app:app", "--port", str(self.port)]
        with (self.home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        until = time.monotonic() + _SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self.home / "server.log").read_text()[-2000:]
            assert time.monotonic() < until, (self.home / "server.log").read_text()[-2000:]
            time.sleep(0.1)

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        try:
            return httpx2.get(f"{self.uri}/version", timeout=5).status_code == 200
        except httpx2.HTTPError:
            return False
