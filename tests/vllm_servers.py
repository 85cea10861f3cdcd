"""Runs stand-ins for vLLM's server as processes that tests start, kill and start again on the same port."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx2

from services.registry.deploying.settings import VllmServer
from tests.vllm_stand_in import How


class VllmProcess:
    """One stand-in."""

    def __init__(self, folder: Path, **how: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.how, self._port = folder, How(**how), 0
        self._process: subprocess.Popen[str] | None = None
        self.how.write(folder)

    def start(self) -> "VllmProcess":
        """Start it, on the port that it had."""
        command = [sys.executable, "-m", "tests.vllm_stand_in", str(self.folder), str(self._port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())
        return self

    def kill(self) -> None:
        """Kill it; its adapters are forgotten."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def forget(self) -> None:
        """Behave as at first, with no adapters, and forget what was asked."""
        self.behave(**asdict(How()))
        for name in self.adapters():
            self.unload(name)
        (self.folder / "asked.jsonl").unlink(missing_ok=True)

    def behave(self, **how: Any) -> None:
        """Behave otherwise from the next request on."""
        self.how = How(**{**asdict(self.how), **how})
        self.how.write(self.folder)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def server(self, **fields: Any) -> VllmServer:
        """Return what an operator says of it."""
        return VllmServer(url=self.url, **{"base_model": "base", **fields})

    def adapters(self) -> dict[str, str]:
        """Return its adapters and the paths from which it read them."""
        headers = {"authorization": f"Bearer {self.how.key or 'none'}"}
        cards = httpx2.get(f"{self.url}/v1/models", headers=headers, trust_env=False).json()["data"]
        return {card["id"]: card["root"] for card in cards if card["parent"] is not None}

    def load(self, name: str, path: str) -> None:
        """Load an adapter as somebody else does."""
        body = {"lora_name": name, "lora_path": path}
        assert httpx2.post(f"{self.url}/v1/load_lora_adapter", json=body, trust_env=False).status_code == 200

    def unload(self, name: str) -> None:
        """Unload an adapter as somebody else does."""
        body = {"lora_name": name}
        assert httpx2.post(f"{self.url}/v1/unload_lora_adapter", json=body, trust_env=False).status_code == 200

    def asked(self, path: str) -> list[dict[str, Any]]:
        """Return what it was asked on a path, with the headers."""
        file = self.folder / "asked.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [one for one in map(json.loads, lines) if one["path"] == path]
