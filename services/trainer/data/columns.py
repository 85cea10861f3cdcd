"""Reads values from the columns of a row by name or dotted path, and words why one cannot be used. Pure."""

import datetime
import json
import math
from collections.abc import Mapping, Sequence

_KINDS: Sequence[tuple[type | tuple[type, ...], str]] = (
    (type(None), "null"),
    (bool, "true or false"),
    (int | float, "a number"),
    (str, "text"),
    (bytes | bytearray, "bytes"),
    ((datetime.date, datetime.time, datetime.timedelta), "a date or time"),
    (Mapping, "an object"),
    (list | tuple, "a list"),
)  # type: ignore[assignment]
_DEPTH = 64
"""The deepest nesting of a row. Libraries that write JSON give up at a few hundred levels."""


class RowFault(Exception):
    """A row cannot be used. Rows with equal faults are reported together."""

    def __init__(self, field: str, message: str, remedy: str) -> None:
        super().__init__(f"{field}: {message}; {remedy}")
        self.field, self.message, self.remedy = field, message, remedy


def kind_of(value: object) -> str:
    """Return the kind of a value in words, without the value."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN or an infinity"
    return next((words for types, words in _KINDS if isinstance(value, types)), f"a {type(value).__name__}")


def found(values: Mapping[str, object], path: str) -> tuple[bool, object]:
    """Return whether a row has a column, and its value. `a.b.0` leads into objects and lists unless a column is named so."""
    if path in values:
        return True, values[path]
    at: object = values
    for part in path.split("."):
        if isinstance(at, Mapping) and part in at:
            at = at[part]
        elif isinstance(at, list | tuple) and part.isdecimal() and int(part) < len(at):
            at = at[int(part)]
        else:
            return False, None
    return True, at


def value_of(values: Mapping[str, object], field: str, column: str) -> object:
    """Return the value of a column that every row needs. Raises RowFault."""
    there, value = found(values, column)
    if not there:
        raise RowFault(
            f"dataset.columns.{field}",
            f"none of the {len(values)} columns is named {column!r}",
            f"name one of its columns in dataset.columns.{field}",
        )
    return value


def text_of(values: Mapping[str, object], field: str, column: str) -> str:
    """Return the text of a column that every row needs; numbers and truth values are written as JSON. Raises RowFault."""
    text = optional_text(values, field, column, needed=True)
    if text is None:
        raise RowFault(f"dataset.columns.{field}", f"column {column!r} is empty", "fill it in or remove the row")
    return text


def optional_text(values: Mapping[str, object], field: str, column: str | None, *, needed: bool = False) -> str | None:
    """Return the text of a column; None if it is blank, null or, unless it is needed, absent. Raises RowFault."""
    if column is None:
        return None
    value = value_of(values, field, column) if needed else found(values, column)[1]
    if value is None and not needed:
        return None
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    if not isinstance(value, str):
        raise RowFault(
            f"dataset.columns.{field}",
            f"column {column!r} contains {kind_of(value)}, not text",
            "name a column of text, or store the text of the value",
        )
    return value if value.strip() else None


def refuse_unwritable(value: object, depth: int = 0) -> None:
    """Raise RowFault if a value cannot be stored: a text contains half a character, as JSON cut in the middle of an emoji has,
    or objects and lists are nested too deeply.
    """
    match value:
        case str() if not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
            raise RowFault(
                "dataset.reference",
                "a text contains half of a character (a lone surrogate, as in an emoji that was cut)",
                "cut texts between characters, or remove the row",
            )
        case Mapping() | list() | tuple() if depth == _DEPTH:
            what = f"objects and lists are nested deeper than {_DEPTH} levels"
            raise RowFault("dataset.reference", what, "store flatter rows, or remove the row")
        case Mapping():
            for name, part in value.items():
                refuse_unwritable(name)
                refuse_unwritable(part, depth + 1)
        case list() | tuple():
            for part in value:
                refuse_unwritable(part, depth + 1)


def parsed(value: object, field: str, what: str) -> object:
    """Return a value that may be stored as JSON in a text. Raises RowFault."""
    if not isinstance(value, str):
        return value
    try:
        found_in_text: object = json.loads(value)
    except (ValueError, RecursionError):
        raise RowFault(field, f"{what} contains text that is not JSON", "store it as JSON") from None
    refuse_unwritable(found_in_text)
    return found_in_text


def texts_of(values: Mapping[str, object]) -> dict[str, str]:
    """Return all columns as text."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for name, value in values.items()
    }
