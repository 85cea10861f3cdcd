"""Chats with a server that speaks OpenAI's API."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from services.registry.deploying.faults import Away
from services.registry.deploying.remote.http import AWAY, Asking, Reply, client
from services.registry.deploying.remote.patience import Patience

Read = TypeVar("Read", bound=BaseModel)


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Chat(BaseModel):
    choices: list[_Choice]


class ChatServer:
    """One server, which messages call `name`. All methods raise Away."""

    def __init__(self, name: str, address: str, key: str | None, patience: Patience) -> None:
        self.name, self._patience = name, patience
        self._http = client(address, key)
        self._asking = Asking(name, self._http)

    async def chat(self, body: Mapping[str, Any]) -> str:
        """Return the answer to a request of `POST /v1/chat/completions`."""
        reply = await self._asking.send("POST", "/v1/chat/completions", self._patience.answer, json=dict(body))
        self._check(reply, "/v1/chat/completions")
        choices = self._read(_Chat, reply).choices
        return (choices[0].message.content or "") if choices else ""

    async def lists(self) -> bool:
        """Return whether it lists its models."""
        try:
            return (await self._asking.send("GET", "/v1/models", self._patience.look)).status == 200
        except Away:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _check(self, reply: Reply, path: str) -> None:
        if reply.status != 200:
            what = f"{self.name} answers {path} with status {reply.status}: {reply.words}"
            raise Away(AWAY, f"{what}; look into its log")

    def _read(self, kind: type[Read], reply: Reply) -> Read:
        try:
            return kind.model_validate_json(reply.body)
        except ValidationError:
            what = f"{self.name} answers with what is not OpenAI's API: {reply.words!r}"
            raise Away(AWAY, f"{what}; see what listens there") from None
