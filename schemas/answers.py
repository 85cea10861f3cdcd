"""Metrics, judges and preference pairs read a model's answer in one way: as text, or as the one JSON object that it is."""

import json

from pydantic import JsonValue


def json_object(answer: str) -> dict[str, JsonValue] | None:
    """The JSON object that `answer` is; None where it is none.

    White space around it is allowed and nothing else: no code fence, no prose, no NaN, for what takes the answer in
    production would not read them either. Of a repeated name the last value counts, as in most parsers.
    """
    try:
        value = json.loads(answer, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # escapes may hide lone surrogates, which are no text
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def field_text(answer: str, field: str | None) -> str | None:
    """The text in a field of a JSON answer, or of the whole answer where `field` is None, without white space around it.

    None where nothing can be read: no object, no such field, no text in it, or a blank one.
    """
    value = answer if field is None else (json_object(answer) or {}).get(field)
    return value.strip() or None if isinstance(value, str) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
