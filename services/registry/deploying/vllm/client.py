"""Speaks the HTTP API of one vLLM server, as `vllm/entrypoints/openai/models/serving.py` and its routers define it.

Adapters are changed by `/v1/load_lora_adapter` and `/v1/unload_lora_adapter`, which a server has only with VLLM_ALLOW_RUNTIME_LORA_UPDATING.
An error has its words in `error.message`; in older versions they stood at the top.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath

from pydantic import BaseModel

from services.registry.deploying.faults import Away
from services.registry.deploying.remote.chatting import ChatServer
from services.registry.deploying.remote.http import AWAY, Reply
from services.registry.deploying.remote.patience import Patience
from services.registry.deploying.settings import VllmServer
from services.registry.deploying.vllm.refusals import key_refused, load_refused, unload_refused


class Card(BaseModel):
    """A model that a server lists."""

    id: str
    root: str | None = None
    """Where the server read it from."""
    parent: str | None = None
    """Of an adapter its base model."""

    def reads(self, path: str) -> bool:
        """Whether the server read it from a folder."""
        return self.root is not None and PurePosixPath(self.root) == PurePosixPath(path)


class _Cards(BaseModel):
    data: list[Card]


class VllmClient(ChatServer):
    """One server. All methods raise Away, or Refused for what the operator has to change."""

    def __init__(self, server: VllmServer, patience: Patience) -> None:
        super().__init__(f"the vLLM server {server.url}", server.url, server.key, patience)
        self.server = server

    async def cards(self) -> Mapping[str, Card]:
        """Return what it serves, by name; also shows that its engine lives."""
        health = await self._asking.send("GET", "/health", self._patience.look)
        if health.status != 200:
            what = f"{self.name} says that it is not healthy (status {health.status})"
            raise Away(AWAY, f"{what}; look into its log, and start it again if it stays so")
        reply = await self._asking.send("GET", "/v1/models", self._patience.look)
        self._check(reply, "/v1/models")
        return {card.id: card for card in self._read(_Cards, reply).data}

    async def load(self, name: str, path: str) -> None:
        """Load the adapter at a path that the server sees."""
        asked = {"lora_name": name, "lora_path": path}
        reply = await self._asking.send("POST", "/v1/load_lora_adapter", self._patience.load, json=asked)
        if reply.status != 200:
            raise load_refused(self.server, reply, path)

    async def unload(self, name: str) -> None:
        """Unload an adapter; nothing happens if it has none of that name."""
        reply = await self._asking.send("POST", "/v1/unload_lora_adapter", self._patience.load, json={"lora_name": name})
        if reply.status != 200 and (refused := unload_refused(self.server, reply)) is not None:
            raise refused

    def _check(self, reply: Reply, path: str) -> None:
        if reply.status in (401, 403):
            raise key_refused(self.server)
        super()._check(reply, path)
