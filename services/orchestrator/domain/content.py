"""Compares requests by a content digest, so that Kafka and HTTP agree on whether two under one job id are the same."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from schemas.reasons import Reason


def content_digest(request: dict[str, Any], faults: Sequence[Reason]) -> str:
    """Return the SHA-256 of a request as sent; the order of keys and the spelling of whole numbers (1, 1.0) make no
    difference.

    Only the fields of `faults` count, since their wording may change with a release.
    """
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
