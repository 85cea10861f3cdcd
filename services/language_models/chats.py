"""Applies a tokenizer's chat template, and turns the text into tokens without adding special ones: the template has them."""

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import JsonValue

from schemas.lines import Message

Fallback = Literal["none", "one turn"]
"""What becomes of a chat that the template does not take as it is; many templates refuse a system turn, and some models have no template.

none: the error goes to the caller. A model is trained, evaluated and served on one format, so a chat in another would teach the wrong one.
one turn: all contents become one user turn, or paragraphs without a template. A judge only reads the model, and any format will do that
is the same for all texts.
"""
Tools = Sequence[dict[str, JsonValue]]
_BATCH = 1000


def render(
    tokenizer: Any,
    chat: Sequence[Message],
    *,
    answered: bool = False,
    tools: Tools = (),
    fallback: Fallback = "none",
) -> str:
    """The text of a chat: whole if it is `answered`, else up to where the assistant's answer begins.

    Raises jinja2.TemplateError where the template refuses the chat, with a fallback where it refuses that, too.
    """
    from jinja2 import TemplateError

    if tokenizer.chat_template is None and fallback == "one turn":
        return "".join(f"{turn.content}\n\n" for turn in chat)
    try:
        return _applied(tokenizer, chat, answered, tools)
    except TemplateError:
        if fallback == "none":
            raise
        one = Message(role="user", content="\n\n".join(turn.content for turn in chat))
        return _applied(tokenizer, [one], answered, tools)


def _applied(tokenizer: Any, chat: Sequence[Message], answered: bool, tools: Tools) -> str:
    """Return the text; arguments of tool calls are objects or, if the template takes only text (DeepSeek V3), JSON."""

    def applied(turns: list[dict[str, object]]) -> str:
        return str(
            tokenizer.apply_chat_template(
                turns, tools=list(tools) or None, tokenize=False, add_generation_prompt=not answered
            )
        )

    try:
        return applied([_turn(turn) for turn in chat])
    except TypeError:
        if not any(turn.tool_calls for turn in chat):
            raise
        return applied([_turn(_with_json_arguments(turn)) for turn in chat])


def _with_json_arguments(turn: Message) -> Message:
    calls = []
    for call in turn.tool_calls:
        function = call.get("function")
        if isinstance(function, dict):
            call = {
                **call,
                "function": {**function, "arguments": json.dumps(function.get("arguments"), ensure_ascii=False)},
            }
        calls.append(call)
    return turn.model_copy(update={"tool_calls": tuple(calls)})


def _turn(turn: Message) -> dict[str, object]:
    """A turn in the form that templates read; fields that it does not have are left out, since templates test for them."""
    fields: dict[str, object] = {"role": turn.role, "content": turn.content}
    if turn.tool_calls:
        fields["tool_calls"] = list(turn.tool_calls)
    if turn.reasoning:
        fields["reasoning_content"] = turn.reasoning
    if turn.name:
        fields["name"] = turn.name
    if turn.tool_call_id:
        fields["tool_call_id"] = turn.tool_call_id
    return fields


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text, without special ones; an empty list for no texts, which the library does not accept."""
    ids: list[list[int]] = []
    for start in range(0, len(texts), _BATCH):
        ids += tokenizer(list(texts[start : start + _BATCH]), add_special_tokens=False)["input_ids"]
    return ids
