"""Parses a model's answer in the same way for metrics, judges and preference pairs: as text or as one JSON object."""

import json

from pydantic import JsonValue


def json_object(answer: str) -> dict[str, JsonValue] | None:
    """Return the JSON object in `answer`; None if it is not one.

    Only white space around it is allowed: no code fence, no prose, no NaN, because the consumer of the answer in production
    would not read them either. Of a repeated name the last value counts, as in most parsers.
    """
    try:
        value = json.loads(answer, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # escapes may hide lone surrogates, which are not text
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def field_text(answer: str, field: str | None) -> str | None:
    """Return the text in a field of a JSON answer, or the whole answer if `field` is None, without white space around it.

    None if there is no text: no object, no such field, no text in it, or a blank one.
    """
    value = answer if field is None else (json_object(answer) or {}).get(field)
    return value.strip() or None if isinstance(value, str) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
