"""Maps a stored row to a chat with its reference answer, or raises the reason why it cannot be used. Pure."""

import json
from collections.abc import Mapping

from schemas.lines import Message, Row
from schemas.recipes import ColumnMapping, DatasetSettings
from services.trainer.data.raw import RawRow

_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
"""Other common names for the roles of a chat."""


class RowFault(Exception):
    """A row cannot be used. Rows with equal faults are reported together."""

    def __init__(self, field: str, message: str, remedy: str) -> None:
        super().__init__(f"{field}: {message}; {remedy}")
        self.field, self.message, self.remedy = field, message, remedy


def row_of(raw: RawRow, row_id: str, settings: DatasetSettings) -> Row:
    """Map a stored row to a `Row`. Raises RowFault."""
    columns = settings.columns
    if columns.messages is not None:
        turns, completion = _chat(raw.values, columns.messages)
    else:
        turns = (Message(role="user", content=_text(raw.values, "prompt", columns.prompt)),)
        completion = _text(raw.values, "completion", columns.completion)
    system = _system(raw.values, columns) or settings.system_prompt
    if system and turns[0].role != "system":
        turns = (Message(role="system", content=system), *turns)
    texts = {name: value if isinstance(value, str) else _json(value) for name, value in raw.values.items()}
    return Row(id=row_id, messages=turns, completion=completion, columns=texts)


def _value(values: Mapping[str, object], field: str, column: str) -> object:
    if column not in values:
        raise RowFault(
            f"dataset.columns.{field}",
            f"none of the {len(values)} columns is named {column!r}",
            f"name one of its columns in dataset.columns.{field}",
        )
    return values[column]


def _text(values: Mapping[str, object], field: str, column: str) -> str:
    value = _value(values, field, column)
    if isinstance(value, bool | int | float):
        value = json.dumps(value)
    if not isinstance(value, str):
        what = "null" if value is None else f"a {type(value).__name__}"
        raise RowFault(
            f"dataset.columns.{field}",
            f"column {column!r} contains {what}, not text",
            "name a column of text, or store the text of the value",
        )
    if not value.strip():
        raise RowFault(f"dataset.columns.{field}", f"column {column!r} is empty", "fill it in or remove the row")
    return value


def _system(values: Mapping[str, object], columns: ColumnMapping) -> str | None:
    if columns.system is None:
        return None
    value = _value(values, "system", columns.system)
    if value is not None and not isinstance(value, str):
        what = f"column {columns.system!r} contains a {type(value).__name__}, not text"
        raise RowFault("dataset.columns.system", what, "name a column of text")
    return value if value and value.strip() else None


def _chat(values: Mapping[str, object], column: str) -> tuple[tuple[Message, ...], str]:
    """Return the turns before the last answer, and that answer. Earlier answers are context and are not trained on."""
    field = "dataset.columns.messages"
    value = _value(values, "messages", column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise RowFault(field, f"column {column!r} contains text that is not JSON", "store a list of turns") from None
    if not isinstance(value, list):
        raise RowFault(field, f"column {column!r} does not contain a list of turns", "name the column with the chat")
    turns = tuple(_turn(turn, column) for turn in value)
    if len(turns) < 2 or turns[-1].role != "assistant":
        what = f"the chat in {column!r} does not end with an assistant's answer to another turn"
        raise RowFault(field, what, "cut it after the last answer or remove the row")
    if any(turn.role == "system" for turn in turns[1:]):
        what = f"the chat in {column!r} has a system turn that is not the first turn"
        raise RowFault(field, what, "move it to the front or remove it")
    return turns[:-1], turns[-1].content


def _turn(turn: object, column: str) -> Message:
    field = "dataset.columns.messages"
    if not isinstance(turn, Mapping):
        raise RowFault(field, f"a turn in {column!r} is a {type(turn).__name__}", "write turns as {role, content}")
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if not isinstance(role, str) or not isinstance(content, str):
        what = f"a turn in {column!r} has no text in role and content"
        raise RowFault(field, what, "write turns as {role, content}")
    if not content.strip():
        raise RowFault(field, f"a turn in {column!r} is empty", "fill it in, or remove the turn or the row")
    return Message(role=_ROLES.get(role, role), content=content)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
