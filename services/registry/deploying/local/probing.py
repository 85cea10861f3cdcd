"""Asks a version that was just loaded real questions: it says something, and what its evaluation recorded."""

from collections.abc import Sequence

from schemas.lines import Message
from services.registry.deploying.driver import Probe, Target
from services.registry.deploying.local.faults import Refused
from services.registry.deploying.local.server import ModelServer

_QUESTIONS = ("Hello! Who are you?", "What is the capital of France?", "Write one sentence about the sea.")
_SHORT = 16
_SHOWN = 120
_THOUGHT_ENDS = "</think>"


async def probe(server: ModelServer, target: Target) -> None:
    """Ask; the first answers also warm the process up. Raises Refused or Died."""
    if target.probe is not None:
        await _recorded(server, target, target.probe)
    for question in _QUESTIONS:
        if await _said(server, target, [Message(role="user", content=question)], _SHORT):
            return
    what = f"{target.served} answered {len(_QUESTIONS)} questions with nothing"
    raise Refused("EmptyAnswer", f"{what}; evaluate it, and train it again on rows with answers")


async def _recorded(server: ModelServer, target: Target, recorded: Probe) -> None:
    said = (await _said(server, target, recorded.messages, recorded.max_tokens)).rpartition(_THOUGHT_ENDS)[2].strip()
    if said == recorded.answer.strip():
        return
    if not said:
        raise Refused("EmptyAnswer", f"{target.served} answered its reference question with nothing; evaluate it again")
    what = f"{target.served} answers its reference question with {said[:_SHOWN]!r}; evaluation recorded {recorded.answer[:_SHOWN]!r}"
    raise Refused("AnswerDiffers", f"{what}; evaluate it again on this kind of machine, with precision auto")


async def _said(server: ModelServer, target: Target, messages: Sequence[Message], tokens: int) -> str:
    turns = [turn.model_dump(include={"role", "content", "name", "tool_call_id"}, exclude_none=True) for turn in messages]
    for turn, message in zip(turns, messages, strict=True):
        if message.tool_calls:
            turn["tool_calls"] = list(message.tool_calls)
        if message.reasoning:
            turn["reasoning_content"] = message.reasoning
    return await server.chat({"model": target.served, "messages": turns, "temperature": 0, "max_tokens": tokens})
