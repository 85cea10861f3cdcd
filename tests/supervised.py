"""What tests of the supervision share: a chat format with a template, chats, and what of them is learnt, as text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas.lines import Message, Row
from services.language_models.chat_format.chat import Chat, Tokens
from tests.tiny_tokenizers import bytes_tokenizer, llama2_tokenizer


def chat_of(home: Path, template: str | dict[str, str] | None, given: str | None = None, *, llama2: bool = False) -> Chat:
    """Return the chat format of a folder with this template; `given` is the request's."""
    made = (llama2_tokenizer if llama2 else bytes_tokenizer)(home / "tokenizer", template)
    return Chat(made, given)


def turn(said: str, **more: Any) -> Message:
    """Return a turn from `role: content`."""
    role, _, content = said.partition(": ")
    return Message(role=role, content=content, **more)


def row(*turns: Message | str, tools: Sequence[dict[str, Any]] = ()) -> Row:
    """Return a row whose last turn is its last answer."""
    *before, last = (one if isinstance(one, Message) else turn(one) for one in turns)
    answer = {name: getattr(last, name) for name in ("tool_calls", "reasoning", "weight")}
    return Row(id="row-1", messages=tuple(before), completion=last.content, tools=tuple(tools), columns={}, **answer)


def learnt(chat: Chat, tokens: Tokens) -> list[str]:
    """Return the text of every learnt answer, with its end."""
    found: list[list[int]] = []
    before = False
    for token, is_learnt in zip(tokens.ids, tokens.learnt, strict=True):
        if is_learnt and not before:
            found.append([])
        if is_learnt:
            found[-1].append(token)
        before = is_learnt
    return [str(chat.tokenizer.decode(ids)) for ids in found]


def encoded(chat: Chat, one: Row, turns: Any = "all") -> Tokens:
    """Return the tokens of a row."""
    (tokens,) = chat.encode([one], turns)
    return tokens


def answers(chat: Chat, one: Row, turns: Any = "all") -> list[str]:
    """Return the text of every learnt answer of a row."""
    return learnt(chat, encoded(chat, one, turns))


def prompt(chat: Chat, tokens: Tokens) -> str:
    """Return the text before the first learnt answer."""
    return str(chat.tokenizer.decode(tokens.prompt))


def call(name: str, **arguments: Any) -> dict[str, Any]:
    """Return a tool call in OpenAI's form."""
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def tool(name: str) -> dict[str, Any]:
    """Return a tool in OpenAI's form."""
    return {
        "type": "function",
        "function": {"name": name, "description": "", "parameters": {"type": "object", "properties": {}}},
    }
