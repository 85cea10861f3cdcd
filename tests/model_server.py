"""A model server within the test's process, asked through its ASGI application as a caller over HTTP would ask it."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.registry.model_server.app import Api, HttpLimits
from services.registry.model_server.decoder import Limits
from services.registry.model_server.messages import SECRET_HEADER
from services.registry.model_server.models import ServedModels

SECRET = "only the registry knows it"
ASKED = [{"role": "user", "content": "colour 3?"}]


@dataclass
class Caller:
    """One request and what came back."""

    body: bytes
    path: str
    method: str = "POST"
    secret: str | None = SECRET
    status: int = 0
    received: bytearray = field(default_factory=bytearray)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the first part of the answer is there."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """To be set when the caller leaves."""
    _given: bool = False

    async def receive(self) -> dict[str, Any]:
        if self._given:
            await self.left.wait()
            return {"type": "http.disconnect"}
        self._given = True
        return {"type": "http.request", "body": self.body, "more_body": False}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message.get("body"):
            self.received += message["body"]
            self.began.set()

    async def ask(self, app: Any) -> "Caller":
        headers = [] if self.secret is None else [(SECRET_HEADER.encode(), self.secret.encode())]
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.0"}, "http_version": "1.1", "method": self.method,
            "path": self.path, "raw_path": self.path.encode(), "query_string": b"", "headers": headers, "scheme": "http",
            "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1), "root_path": "",
        }  # fmt: skip
        await app(scope, self.receive, self.send)
        return self

    @property
    def json(self) -> Any:
        return json.loads(self.received)

    @property
    def events(self) -> list[Any]:
        """The events of a stream, without the mark of its end, which has to be there."""
        lines = [line.removeprefix("data: ") for line in self.received.decode().split("\n\n") if line]
        assert lines.pop() == "[DONE]"
        return [json.loads(line) for line in lines]


class Server:
    """Models that are served, and their application."""

    def __init__(self, base: Path, lanes: int = 1, rows: int = 8, waiting: int = 64, cells: int = 262_144) -> None:
        self.models = ServedModels(base, lanes, Limits(rows, cells, waiting))
        self.models.load_base()
        self.app = Api(self.models, HttpLimits(body=20_000, tokens=200)).app(SECRET)

    def caller(self, path: str = "chat/completions", **body: Any) -> Caller:
        given = {"model": "tuned@1.0.0", "max_tokens": 12, **body}
        if path == "chat/completions":
            given = {"messages": ASKED, **given}
        return Caller(json.dumps(given).encode(), f"/v1/{path}")

    async def ask(self, path: str = "chat/completions", **body: Any) -> Caller:
        return await self.caller(path, **body).ask(self.app)

    async def says(self, **body: Any) -> list[str]:
        asked = await self.ask(**body)
        assert asked.status == 200, asked.received
        return [choice["message"]["content"] for choice in asked.json["choices"]]

    def close(self) -> None:
        for served in self.models.all:
            self.models.remove(served.name)
