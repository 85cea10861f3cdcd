"""Proves that a rendered chat says what its turns say: templates write nothing for roles and fields that they do not know."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pydantic import JsonValue

from schemas.lines import Message
from schemas.reasons import shown
from services.language_models.chat_format.templates import ChatFault
from services.language_models.chats import Tools

THOUGHT_BEGINS, THOUGHT_ENDS = "<think>", "</think>"
_OTHER_NAMES = {"tool": "tool (ShareGPT: observation)", "assistant": "assistant (ShareGPT: gpt, function_call)"}
_TAG = re.compile(r"</?\w+>")


class Part(NamedTuple):
    """A part of a chat whose text has to occur in the rendered chat."""

    name: str
    """How a message names it, for example `a turn of role tool`."""
    text: str


def turn_named(turn: Message) -> str:
    """Return how a message names a turn."""
    return f"a turn of role {_OTHER_NAMES.get(turn.role) or shown(turn.role)}"


def marked(chat: Sequence[Message], tools: Tools) -> tuple[list[Message], Tools, list[Part]]:
    """Return the chat with a mark in place of every text, and the marks: each stands for a part that must be written.

    Two chats of the same shape have the same marks, so that one rendering decides for both.
    """
    turns, parts = [], list[Part]()
    function: dict[str, JsonValue]
    for number, turn in enumerate(chat):
        calls: list[dict[str, JsonValue]] = []
        if turn.content:
            parts.append(Part(turn_named(turn), f"Zq{number}c"))
        for index, call in enumerate(turn.tool_calls):
            named = f"tool_calls of {turn_named(turn)}"
            parts += [Part(named, f"Zq{number}n{index}"), Part(named, f"Zq{number}v{index}")]
            function = {"name": f"Zq{number}n{index}", "arguments": {"argument": f"Zq{number}v{index}"}}
            calls.append({**call, "function": function})
        content = f"Zq{number}c" if turn.content else ""
        of_tool = {"name": turn.name, "tool_call_id": turn.tool_call_id}
        turns.append(Message(role=turn.role, content=content, tool_calls=tuple(calls), **of_tool))
    if not tools:
        return turns, (), parts
    schema: dict[str, JsonValue] = {"type": "object", "properties": {}}
    function = {"name": "Zqt", "description": "Zqd", "parameters": schema}
    tool: dict[str, JsonValue] = {"type": "function", "function": function}
    return turns, (tool,), [*parts, Part("tools of the row", "Zqt")]


def left_out(parts: Sequence[Part], text: str) -> Part | None:
    """Return the first part that does not occur in the text; None if all do. Templates may write them in another order."""
    return next((part for part in parts if part.text not in text), None)


def refuse_left_out(name: str) -> ChatFault:
    """Return the fault of a part that the template does not write."""
    return ChatFault(
        f"its chat template does not write {name} as it is",
        "rename or remove what the template does not know, or set chat_template to one that writes it",
    )


def refuse_altered(chat: Sequence[Message], text: str) -> None:
    """Raise ChatFault if the content of a turn before the answer does not occur in the rendered prompt.

    What an assistant thought before an earlier answer may be missing: templates leave it out of the history on purpose.
    """
    for turn in chat:
        content = (visible(turn.content) if turn.role == "assistant" else turn.content).strip()
        if not any(form in text for form in _forms(content)) and _squeezed(content) not in _squeezed(text):
            raise refuse_left_out(turn_named(turn))
        if any(name not in text for name in called(turn)):
            raise refuse_left_out(f"tool_calls of {turn_named(turn)}")


def _forms(content: str) -> Iterator[str]:
    """The forms in which templates write a text: as it is, or as a JSON string."""
    yield content
    yield json.dumps(content, ensure_ascii=False)[1:-1]


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def says(text: str, answer: Message) -> bool:
    """Return whether the text contains all that the answer says as it is: its thought, its content and its tool calls.

    A thought must not stand behind an empty one that the template adds, nor an empty one be missing.
    """
    thought, _ = thought_of(answer)
    if THOUGHT_ENDS in answer.content and not thought.strip() and THOUGHT_ENDS not in text:
        return False
    if thought.strip() and text.count(THOUGHT_ENDS) > with_thought(answer).count(THOUGHT_ENDS):
        return False
    return contains(text, answer)


def contains(text: str, answer: Message) -> bool:
    """Return whether the text contains the thought of an answer, its content and the name of each of its tool calls."""
    thought, content = thought_of(answer)
    calls = Counter(called(answer))
    return thought.strip() in text and content.strip() in text and all(text.count(name) >= calls[name] for name in calls)


def called(turn: Message) -> list[str]:
    """Return the names of the functions that a turn calls."""
    functions = [call.get("function", call) for call in turn.tool_calls]
    return [str(function.get("name")) for function in functions if isinstance(function, dict)]


def thought_of(answer: Message) -> tuple[str, str]:
    """Return what was thought, without tags, and the content behind it."""
    before, end, after = answer.content.rpartition(THOUGHT_ENDS)
    inside = re.sub(r"^\s*<\w+>", "", before) if end else ""
    return "\n".join(filter(None, (answer.reasoning, inside))), after


def visible(content: str) -> str:
    """Return the content without the thought at its beginning."""
    before, ends, behind = content.rpartition(THOUGHT_ENDS)
    return behind.strip() if ends else before + behind


def with_thought(answer: Message) -> str:
    """Return the answer's text with its thought in tags in front, as a model that thinks in its answer generates it."""
    if not answer.reasoning:
        return answer.content
    return f"<think>\n{answer.reasoning.strip()}\n{THOUGHT_ENDS}\n\n{answer.content}"


def control_tokens(tokens: Sequence[tuple[str, bool]], template: str) -> "re.Pattern[str]":
    """Return the pattern of control tokens that a text must not spell; `tokens` are the added ones, and whether each is special.

    Tags such as <think> or <tool_call> that are no special tokens are what models write, and are allowed.
    """
    found = [
        token
        for token, special in tokens
        if token.strip() and (special or (token in template and not _TAG.fullmatch(token)))
    ]
    return re.compile("|".join(map(re.escape, sorted(found, key=len, reverse=True))) or "(?!)")


def refuse_control_tokens(pattern: "re.Pattern[str]", chat: Sequence[Message], tools: Tools) -> None:
    """Raise ChatFault if a text spells a control token: it could forge a turn, or end an answer in its middle."""
    for turn in chat:
        texts = [
            turn.role,
            turn.content,
            turn.reasoning or "",
            turn.name or "",
            turn.tool_call_id or "",
            json.dumps(turn.tool_calls, ensure_ascii=False) if turn.tool_calls else "",
        ]
        _refuse_spelt(pattern, turn_named(turn), texts)
    if tools:
        _refuse_spelt(pattern, "tools of the row", [json.dumps(tools, ensure_ascii=False)])


def _refuse_spelt(pattern: "re.Pattern[str]", name: str, texts: Sequence[str]) -> None:
    for text in texts:
        if found := pattern.search(text):
            raise ChatFault(
                f"the text of {name} spells the control token {found.group()}",
                "remove it: the chat template itself writes control tokens, and the end of an answer",
            )
