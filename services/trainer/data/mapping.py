"""Maps a stored row to a chat with its reference answer, or raises the reason why it cannot be used. Pure."""

from collections.abc import Mapping
from typing import Any

from schemas.lines import Message, Row
from schemas.reasons import shown
from schemas.recipes.dataset import ColumnMapping, DatasetSettings
from services.trainer.data.columns import (
    RowFault,
    found,
    optional_text,
    parsed,
    refuse_unwritable,
    text_of,
    texts_of,
    value_of,
)
from services.trainer.data.layouts import RowReading
from services.trainer.data.padding import calls_without_nulls
from services.trainer.data.pairs import dialogue_prompt, pair_of
from services.trainer.data.raw import RawRow, StoredExample
from services.trainer.data.tools import tools_of
from services.trainer.data.turns import turns_of

_MESSAGES = "dataset.columns.messages"
_NO_INPUT = "<noinput>"
"""What Self-Instruct and its followers write where an instruction has no input."""
_ASK = ("user", "tool")
"""Roles of turns that an assistant answers."""


def example_of(raw: RawRow, row_id: str, settings: DatasetSettings, reading: RowReading) -> StoredExample:
    """Map a stored row, unless it is one of a registered data set, which was mapped before. Raises RowFault."""
    if raw.stored is not None:
        return raw.stored
    if raw.fault is not None:
        raise raw.fault
    values, columns = raw.values, reading.columns
    refuse_unwritable(values)
    turns: tuple[Message, ...]
    rejected, label = None, None
    if reading.layout == "text":
        turns = (Message(role="assistant", content=text_of(values, "text", columns.text or "text")),)
    elif reading.layout == "preference":
        turns, rejected = pair_of(values, columns, _before(values, columns))
    elif columns.messages is not None:
        turns = turns_of(value_of(values, "messages", columns.messages), _MESSAGES, columns.messages)
        if not reading.needs_answers and turns and turns[-1].role in _ASK:
            turns = (*turns, _reference(values, columns.completion))
        _require_answer(turns, columns.messages)
    elif not reading.needs_answers and not found(values, columns.completion)[1]:
        turns = (*(_before(values, columns) or ()), _reference(values, columns.completion))
    else:
        turns = _completed(_before(values, columns) or (), values, columns.completion)
    if reading.layout == "kto":
        label = _label(values, columns.label or "label")
    if reading.layout != "text":
        if len(turns) < 2:
            what = "the row has no turn before its answer"
            raise RowFault("dataset.columns.prompt", what, "add the prompt or remove the row")
        turns = _with_system(turns, values, columns, settings)
    tools: tuple[dict[str, Any], ...] = ()
    if columns.tools is not None:
        tools = tools_of(found(values, columns.tools)[1], "dataset.columns.tools", columns.tools)
    *before, last = calls_without_nulls(turns, tools)
    row = Row(
        id=row_id, messages=tuple(before), completion=last.content, tool_calls=last.tool_calls, reasoning=last.reasoning,
        weight=last.weight, tools=tools, columns=texts_of(values),
    )  # fmt: skip
    return StoredExample(row, rejected, label)


def _reference(values: Mapping[str, object], column: str) -> Message:
    """Return what sampled answers to a prompt are compared with, in the place of an answer; empty if there is nothing."""
    return Message(role="assistant", content=optional_text(values, "completion", column) or "")


def _require_answer(turns: tuple[Message, ...], column: str) -> None:
    if len(turns) < 2 or turns[-1].role != "assistant":
        what = f"the chat in {column!r} does not end with an assistant's answer to another turn"
        if turns and turns[-1].role not in ("assistant", "user"):
            what += f", but with a turn of role {shown(turns[-1].role)}"
        raise RowFault(_MESSAGES, what, "cut it after the last answer or remove the row")


def _completed(before: tuple[Message, ...], values: Mapping[str, object], column: str) -> tuple[Message, ...]:
    """Return the turns of a prompt with its completion, which is a text or a list of turns."""
    field = "dataset.columns.completion"
    if not isinstance(value := value_of(values, "completion", column), list | tuple):
        return (*before, Message(role="assistant", content=text_of(values, "completion", column)))
    turns = turns_of(value, field, column)
    if not turns or turns[-1].role != "assistant":
        raise RowFault(field, f"the turns in {column!r} do not end with an assistant's answer", "cut them after the answer")
    return (*before, *turns)


def _before(values: Mapping[str, object], columns: ColumnMapping) -> tuple[Message, ...] | None:
    """Return the turns up to the answer; None if the row has no prompt of its own, as pairs of whole chats have none."""
    if columns.messages is not None:
        return turns_of(value_of(values, "messages", columns.messages), _MESSAGES, columns.messages)
    there, prompt = found(values, columns.prompt)
    if columns.chosen is not None and (not there or prompt is None):
        return None
    if isinstance(prompt, list | tuple):
        return turns_of(prompt, "dataset.columns.prompt", columns.prompt)
    text = text_of(values, "prompt", columns.prompt)
    if columns.chosen is not None and (turns := dialogue_prompt(text)):
        return turns
    more = optional_text(values, "input", columns.input)
    if more and more.strip() != _NO_INPUT:
        text = f"{text}\n{more}"
    return (*_history(values, columns), Message(role="user", content=text))


def _history(values: Mapping[str, object], columns: ColumnMapping) -> tuple[Message, ...]:
    column, field = columns.history, "dataset.columns.history"
    value = found(values, column)[1] if column is not None else None
    if not value:
        return ()
    value = parsed(value, field, f"column {column!r}")
    pairs = value if isinstance(value, list | tuple) else [None]
    turns = list[Message]()
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(t, str) and t.strip() for t in pair):
            what = f"column {column!r} is not a list of pairs of a question and its answer"
            raise RowFault(field, what, "write it as [[question, answer], ...]")
        turns += [Message(role="user", content=pair[0]), Message(role="assistant", content=pair[1])]
    return tuple(turns)


def _with_system(
    turns: tuple[Message, ...], values: Mapping[str, object], columns: ColumnMapping, settings: DatasetSettings
) -> tuple[Message, ...]:
    system = optional_text(values, "system", columns.system) or settings.system_prompt
    return (Message(role="system", content=system), *turns) if system and turns[0].role != "system" else turns


def _label(values: Mapping[str, object], column: str) -> bool:
    value = value_of(values, "label", column)
    said = value.strip().lower() if isinstance(value, str) else value
    if said in ("true", "1", 1):
        return True
    if said in ("false", "0", 0):
        return False
    what = f"column {column!r} contains neither true nor false"
    raise RowFault("dataset.columns.label", what, "write true for a wanted answer, false for an unwanted one")
