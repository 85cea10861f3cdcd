"""Computes the digest of a row of a data set as a person gave it, so that the row can be found again.

The digest is the SHA-256 of the row's canonical JSON in UTF-8: an object with all columns as they were read, before any of them is mapped
or left out. Names are sorted by code point, nothing stands between the signs, and characters are not escaped unless JSON demands it.
A number without a fraction is written as a whole number (1.0, 1e0 and -0.0 are 1, 1 and 0), others as the shortest text that means the
same double. Texts stay as they are, in whichever form of Unicode. What JSON has no value for is a text: times in ISO 8601, bytes in
hexadecimal digits, anything else as Python writes it.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import date, time


def row_digest(values: Mapping[str, object]) -> str:
    """Return the digest of a row, in lower-case hexadecimal digits."""
    text = json.dumps(_plain(values), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: object) -> object:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return int(value) if value.is_integer() else value
        case Mapping():
            return {str(name): _plain(part) for name, part in value.items()}
        case list() | tuple():
            return [_plain(part) for part in value]
        case bytes():
            return value.hex()
        case date() | time():
            return value.isoformat()
    return str(value)
