"""Asks a version that was just loaded real questions: it says something, and what its evaluation recorded."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from schemas.lines import Message
from services.registry.deploying.faults import Refused
from services.registry.deploying.files import Probe

_QUESTIONS = ("Hello! Who are you?", "What is the capital of France?", "Write one sentence about the sea.")
_SHORT = 16
_COMPARED = 48
"""Characters of an answer that are compared, and as many tokens are asked for: a token has at least one."""
_THOUGHT_ENDS = "</think>"


class Answering(Protocol):
    """A server that answers chats."""

    async def chat(self, body: Mapping[str, Any]) -> str:
        """Return the answer to a request of `POST /v1/chat/completions`. Raises Died or Away."""


async def probe(server: Answering, served: str, recorded: Sequence[Probe]) -> None:
    """Ask for the model that the server calls `served`; the first answers also warm it up. Raises Refused, Died or Away."""
    if recorded:
        await _recorded(server, served, recorded)
    for question in _QUESTIONS:
        if (await _said(server, served, [Message(role="user", content=question)], _SHORT)).strip():
            return
    what = f"{served} answered {len(_QUESTIONS)} questions with nothing"
    raise Refused("EmptyAnswer", f"{what}; evaluate it, and train it again on rows with answers")


async def _recorded(server: Answering, served: str, recorded: Sequence[Probe]) -> None:
    """Compare how answers begin; most must be equal. A near tie of two tokens may fall otherwise on another machine, or in another batch."""
    said = await asyncio.gather(*(_said(server, served, one.messages, _COMPARED) for one in recorded))
    others = [(one, text) for one, text in zip(recorded, said, strict=True) if not _begins_alike(text, one.answer)]
    if 2 * len(others) < len(recorded):
        return
    if not any(said):
        raise Refused("EmptyAnswer", f"{served} answered its reference questions with nothing; evaluate it again")
    one, text = others[0]
    what = f"{served} answers {len(others)} of {len(recorded)} reference questions otherwise than evaluation recorded, one with"
    message = f"{what} {text.strip()[:_COMPARED]!r} and not {one.answer[:_COMPARED]!r}"
    raise Refused("AnswerDiffers", f"{message}; evaluate it again on this kind of machine, with precision auto")


def _begins_alike(said: str, answer: str) -> bool:
    """Whether an answer, with or without the thought before it, begins as the recorded one, which may have been cut."""
    return any(
        text.strip()[:_COMPARED].startswith(answer[:_COMPARED]) for text in (said, said.rpartition(_THOUGHT_ENDS)[2])
    )


async def _said(server: Answering, served: str, messages: Sequence[Message], tokens: int) -> str:
    turns = [turn.model_dump(include={"role", "content", "name", "tool_call_id"}, exclude_none=True) for turn in messages]
    for turn, message in zip(turns, messages, strict=True):
        if message.tool_calls:
            turn["tool_calls"] = list(message.tool_calls)
        if message.reasoning:
            turn["reasoning_content"] = message.reasoning
    return await server.chat({"model": served, "messages": turns, "temperature": 0, "max_tokens": tokens})
