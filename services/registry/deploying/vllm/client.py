"""Speaks the HTTP API of one vLLM server, as `vllm/entrypoints/openai/models/serving.py` and its routers define it.

Adapters are changed by `/v1/load_lora_adapter` and `/v1/unload_lora_adapter`, which a server has only with VLLM_ALLOW_RUNTIME_LORA_UPDATING.
An error has its words in `error.message`; before vLLM 0.10 they stood at the top.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from services.registry.deploying.faults import Away
from services.registry.deploying.remote.http import AWAY, Asking, Reply, client
from services.registry.deploying.settings import VllmServer
from services.registry.deploying.vllm.refusals import key_refused, load_refused, unload_refused

_T = TypeVar("_T", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server may take, in seconds."""

    look: float = 5.0
    load: float = 300.0
    answer: float = 300.0
    between: float = 2.0
    """Between two looks at it."""
    misses: int = 3
    """Looks in a row that may fail."""


class Card(BaseModel):
    """A model that a server lists."""

    id: str
    root: str | None = None
    """Where the server read it from."""
    parent: str | None = None
    """Of an adapter its base model."""


class _Cards(BaseModel):
    data: list[Card]


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Chat(BaseModel):
    choices: list[_Choice]


class VllmClient:
    """One server. All methods raise Away, or Refused for what the operator has to change."""

    def __init__(self, server: VllmServer, patience: Patience) -> None:
        self.server, self._patience = server, patience
        self._http = client(server.url, server.key)
        self._asking = Asking(f"the vLLM server {server.url}", self._http)

    async def cards(self) -> Mapping[str, Card]:
        """Return what it serves, by name; also shows that its engine lives."""
        health = await self._asking.send("GET", "/health", self._patience.look)
        if health.status != 200:
            what = f"the vLLM server {self.server.url} says that it is not healthy (status {health.status})"
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

    async def chat(self, body: Mapping[str, Any]) -> str:
        """Return the answer to a request of `POST /v1/chat/completions`."""
        reply = await self._asking.send("POST", "/v1/chat/completions", self._patience.answer, json=dict(body))
        self._check(reply, "/v1/chat/completions")
        choices = self._read(_Chat, reply).choices
        return (choices[0].message.content or "") if choices else ""

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _check(self, reply: Reply, path: str) -> None:
        if reply.status in (401, 403):
            raise key_refused(self.server)
        if reply.status != 200:
            what = f"the vLLM server {self.server.url} answers {path} with status {reply.status}: {reply.words}"
            raise Away(AWAY, f"{what}; look into its log")

    def _read(self, kind: type[_T], reply: Reply) -> _T:
        try:
            return kind.model_validate_json(reply.body)
        except ValidationError:
            what = f"the vLLM server {self.server.url} answers with what is not vLLM's: {reply.words!r}"
            raise Away(AWAY, f"{what}; see what listens there") from None
