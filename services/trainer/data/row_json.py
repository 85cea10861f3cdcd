"""Parses the JSON of a row and says where it is none, without the content there."""

import json


class Twice(Exception):
    """A name occurs twice in one object."""


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise Twice
    return values


DECODER = json.JSONDecoder(object_pairs_hook=_once)


def row_json(text: str) -> object:
    """Parse the JSON of a row. Raises ValueError, RecursionError, and Twice for a name that occurs twice in an object."""
    return DECODER.decode(text)


def no_json(error: Exception) -> str:
    """The position at which JSON parsing fails, without the content there."""
    match error:
        case UnicodeDecodeError():
            return f"this is not JSON: byte {error.start} is not UTF-8"
        case json.JSONDecodeError():
            return f"this is not JSON: {error.msg[:1].lower()}{error.msg[1:]}, column {error.colno}"
    return f"this is not readable JSON ({type(error).__name__})"
