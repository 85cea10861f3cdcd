"""Says where a document differs from the one that follows from the records: the field of JSON, or the line of a text."""

import json
from collections.abc import Mapping
from typing import Any

from services.audit.bundle.cited import escaped
from services.audit.bundle.faults import Difference

_NOTHING = "nothing"
_SLACK = 64 * 1024


def first_difference(file: str, expected: bytes, found: bytes, *, is_json: bool = False) -> Difference | None:
    """Return the first difference of two documents, JSON or text; None if they are equal."""
    if expected == found:
        return None
    if len(found) > 2 * len(expected) + _SLACK:  # what is far longer is not parsed
        return Difference(file, f"{len(expected)} bytes", f"{len(found)} bytes")
    if is_json or file.endswith(".json"):
        wanted, there = json.loads(expected), _parsed(found)
        if there is None:
            return Difference(file, "JSON", "something that cannot be read")
        if (place := _place(wanted, there, "")) is not None:
            return Difference(f"{file} {place[0] or '/'}", place[1], place[2])
        return Difference(file, "the one spelling of its JSON", "another one, or a name that occurs twice")
    return _line(file, expected, found)


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _place(expected: Any, found: Any, pointer: str) -> tuple[str, str, str] | None:
    if type(expected) is not type(found):
        return pointer, _text(expected), _text(found)
    if isinstance(expected, Mapping):
        for name in (*expected, *(name for name in found if name not in expected)):
            place = _member(expected, found, name, f"{pointer}/{escaped(name)}")
            if place is not None:
                return place
        return None
    if isinstance(expected, list):
        for number, (one, other) in enumerate(zip(expected, found, strict=False)):
            if (place := _place(one, other, f"{pointer}/{number}")) is not None:
                return place
        return None if len(expected) == len(found) else (pointer, f"{len(expected)} items", f"{len(found)} items")
    return None if expected == found else (pointer, _text(expected), _text(found))


def _member(expected: Any, found: Any, name: str, pointer: str) -> tuple[str, str, str] | None:
    if name not in found:
        return pointer, _text(expected[name]), _NOTHING
    if name not in expected:
        return pointer, _NOTHING, _text(found[name])
    return _place(expected[name], found[name], pointer)


def _line(file: str, expected: bytes, found: bytes) -> Difference:
    wanted, there = expected.splitlines(keepends=True), found.splitlines(keepends=True)
    for number, (one, other) in enumerate(zip(wanted, there, strict=False), 1):
        if one != other:
            return Difference(
                f"{file} line {number}", *(raw.decode(errors="backslashreplace").rstrip("\n") for raw in (one, other))
            )
    return Difference(file, f"{len(wanted)} lines", f"{len(there)} lines")


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
