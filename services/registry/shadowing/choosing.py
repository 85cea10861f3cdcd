"""Decides which requests are shadowed, and reads the texts of both sides; pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from schemas.lines import AnswerPair, Message
from services.registry.calling.asked import Asked

TEXT_BYTES = 64 * 1024
"""The most bytes of a request, and the most characters of an answer, that are shadowed."""
_WITHOUT = ("tools", "tool_choice", "functions", "function_call", "response_format", "audio", "modalities")
_ROLES = ("system", "developer", "user", "assistant")


class Offer(NamedTuple):
    """A request that the version before has answered."""

    deployment: str
    rollout: int
    percent: float
    most: int
    """The most pairs of the step."""
    asked: Asked
    response: str
    served: str
    """`model@version` of the version before."""
    answer: str

    def pair(self, served: str, answer: str) -> AnswerPair:
        """Return it with the answer of the canary `served`."""
        messages = tuple(Message(role=one["role"], content=one["content"]) for one in self.asked.body["messages"])
        return AnswerPair(
            id=self.response, messages=messages, first=self.answer, second=answer, first_version=self.served,
            second_version=served,
        )  # fmt: skip


def is_plain(asked: Asked) -> bool:
    """Return whether a request has only text, asks for one answer and is short."""
    body = asked.body
    if asked.size > TEXT_BYTES or body.get("n") not in (None, 1) or any(body.get(name) for name in _WITHOUT):
        return False
    messages: Sequence[Mapping[str, Any]] = body["messages"]
    return all(_is_plain(one) for one in messages)


def _is_plain(message: Mapping[str, Any]) -> bool:
    return message.get("role") in _ROLES and isinstance(message.get("content"), str) and not message.get("tool_calls")


def whole(asked: Asked) -> Asked:
    """Return the request for an answer in one piece."""
    body = {name: value for name, value in asked.body.items() if name != "stream_options"}
    return asked._replace(stream=False, body={**body, "stream": False})


def text_of(answer: bytes) -> str:
    """Return the text of a whole answer; empty for one without text. Raises ValueError for what is no answer."""
    try:
        message = json.loads(answer)["choices"][0]["message"]
        content = message.get("content")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError("the server's answer has no message") from error
    return content if isinstance(content, str) and content.strip() and not message.get("tool_calls") else ""
