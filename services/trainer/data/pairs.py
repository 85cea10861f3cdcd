"""Reads preference pairs: two answers to one prompt, as texts, as turns or as whole chats. Pure."""

import re
from collections.abc import Mapping, Sequence

from schemas.lines import Message
from schemas.recipes.dataset import ColumnMapping
from services.trainer.data.columns import RowFault, text_of, value_of
from services.trainer.data.turns import turn_of, turns_of

_DIALOGUE = re.compile(r"\n\n(Human|Assistant): ?")
"""How Anthropic's HH-RLHF data separate the turns of a chat that is one text."""
_CHAT = re.compile(r"""\s*\[\s*\{\s*["'](role|from|content|value)["']""")
"""How a chat begins that is stored as JSON in a text; an answer may be JSON, too."""
_OPEN = "\n\nAssistant:"


def pair_of(
    values: Mapping[str, object], columns: ColumnMapping, before: Sequence[Message] | None
) -> tuple[tuple[Message, ...], str]:
    """Return the chat with the better answer at its end, and the worse answer. `before` are the turns up to the answers, None
    if the row has none of its own. Raises RowFault.
    """
    if columns.chosen is None or columns.rejected is None:
        raise ValueError("the layout of pairs names both answers")
    chosen, better = _answer(values, "chosen", columns.chosen, before)
    rejected, worse = _answer(values, "rejected", columns.rejected, before)
    if list(map(_said, chosen)) != list(map(_said, rejected)):
        raise RowFault(
            "dataset.columns.rejected",
            "the two chats of the pair differ before their last answers",
            "let both answers continue the same chat",
        )
    if better.content.strip() == worse.content.strip():
        what = "the chosen and the rejected answer are equal"
        raise RowFault("dataset.columns.rejected", what, "remove the row: it prefers nothing")
    return (*chosen, better), worse.content


def _said(turn: Message) -> tuple[object, ...]:
    return turn.role, turn.content, turn.tool_calls, turn.reasoning


def _answer(
    values: Mapping[str, object], side: str, column: str, before: Sequence[Message] | None
) -> tuple[Sequence[Message], Message]:
    """Return the turns before an answer, and the answer."""
    field, value = f"dataset.columns.{side}", value_of(values, side, column)
    chat = isinstance(value, Mapping | list | tuple) or (isinstance(value, str) and _CHAT.match(value))
    if not chat:
        value = text_of(values, side, column)
        if before is not None:
            return _context((), before, field, column), Message(role="assistant", content=value)
        turns = _dialogue(value)
        if not turns:
            what = f"the text in {column!r} is an answer, and the row has no prompt"
            raise RowFault("dataset.columns.prompt", what, "name the column with the prompt in dataset.columns.prompt")
    elif isinstance(value, Mapping):
        turns = (turn_of(value, field, column),)
    else:
        turns = turns_of(value, field, column)
    if not turns or turns[-1].role != "assistant":
        raise RowFault(field, f"the chat in {column!r} does not end with an assistant's answer", "cut it after the answer")
    if turns[-1].tool_calls or turns[-1].reasoning:
        named = "tool_calls" if turns[-1].tool_calls else "reasoning_content"
        what = f"the answer in {column!r} has {named}, and only texts can be preferred"
        raise RowFault(field, what, "remove the row, or write the call or the thought as text")
    return _context(turns[:-1], before, field, column), turns[-1]


def _context(turns: Sequence[Message], before: Sequence[Message] | None, field: str, column: str) -> Sequence[Message]:
    """Return what the answer follows: its own earlier turns if it has any, else the row's prompt."""
    if not turns:
        if before is None:
            what = f"the chat in {column!r} has only an answer, and the row has no prompt"
            raise RowFault("dataset.columns.prompt", what, "name the column with the prompt in dataset.columns.prompt")
        if before and before[-1].role == "assistant":
            what = "the chat before the two answers of the pair ends with an answer already"
            raise RowFault("dataset.columns.messages", what, "end it with the turn that both answers follow")
        return before
    if before and before[-1].content.strip() != turns[-1].content.strip():
        what = f"the chat in {column!r} answers another prompt than that of the row"
        raise RowFault(field, what, "correct the prompt, or leave it out")
    return turns


def dialogue_prompt(text: str) -> tuple[Message, ...]:
    """Return the turns of a prompt that is a chat as one text, up to its open answer; none if it is not written so."""
    opened = text.rstrip().endswith(_OPEN) and text.lstrip().startswith("Human:")
    return _dialogue(text.rstrip() + " -")[:-1] if opened else ()


def _dialogue(text: str) -> tuple[Message, ...]:
    """Return the turns of a chat that is one text; none if it is not written so."""
    parts = _DIALOGUE.split("\n\n" + text.lstrip())
    if parts[0].strip() or len(parts) < 5:
        return ()
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = [Message(role=roles[role], content=said.strip()) for role, said in zip(parts[1::2], parts[2::2], strict=True)]
    return tuple(turns) if all(turn.content for turn in turns) else ()
