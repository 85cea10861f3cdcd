"""Compares requests by a content digest, so that Kafka and HTTP agree on whether two under one job id are the same."""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pydantic_core import from_json, to_json

from schemas.reasons import Reason

REMEMBERED = 64
"""Number of requests of which results are remembered."""
_REMEMBERED_BYTES = 16 * 1024
"""A larger request is not remembered."""
_REMEMBERED_DEPTH = 200
"""With fewer brackets in all, the parser does not refuse the text for its depth."""


def exact_text(request: dict[str, Any]) -> bytes | None:
    """Return JSON that gives exactly this request again, to remember results by; None if it is large, deeply nested or cannot be written."""
    try:
        text = to_json(request)
    except Exception:  # a value that JSON has not; nothing is remembered then
        return None
    return text if len(text) <= _REMEMBERED_BYTES and text.count(b"{") + text.count(b"[") < _REMEMBERED_DEPTH else None


def content_digest(request: dict[str, Any], faults: Sequence[Reason]) -> str:
    """Return the SHA-256 of a request as sent; the order of keys and the spelling of whole numbers (1, 1.0) make no
    difference.

    Only the fields of `faults` count, since their wording may change with a release.
    """
    text = None if faults else exact_text(request)
    return _digest(request, faults) if text is None else _remembered(text)


@lru_cache(maxsize=REMEMBERED)
def _remembered(text: bytes) -> str:
    return _digest(from_json(text), ())


def _digest(request: dict[str, Any], faults: Sequence[Reason]) -> str:
    text = json.dumps([_canonical(request), sorted(fault.field for fault in faults)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {key: _canonical(item) for key, item in value.items()}
        case list():
            return [_canonical(item) for item in value]
    return value
