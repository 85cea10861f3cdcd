"""Reads a record's envelope without validation, even from invalid records; an export stores the result as decoded columns.

It does less than `schemas.envelope.decode`: it knows no event types, so its result for a record stays the same from release
to release and a verification can compare it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_STRUCTURED = b"application/cloudevents+json"
_LARGEST_SEQUENCE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class RawEnvelope:
    """The envelope's attributes as valid Unicode, unvalidated; None for an attribute that the record does not have."""

    type: str | None = None
    id: str | None = None
    source: str | None = None
    subject: str | None = None
    job_id: str | None = None
    """`job_id` in the data, else the correlation id."""
    time: datetime | None = None
    sequence: int | None = None
    causation_id: str | None = None


def read_envelope(value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> RawEnvelope:
    """Read the envelope's attributes, in binary or structured mode. Never raises."""
    names = {name.lower(): raw for name, raw in headers}
    body = _object(value)
    structured = (names.get("content-type") or b"").lower().startswith(_STRUCTURED)
    data = body.get("data") if structured else body
    job_id = data.get("job_id") if isinstance(data, dict) else None

    def attribute(name: str) -> str | None:
        raw: Any = body.get(name) if structured else names.get(f"ce_{name}")
        if isinstance(raw, int) and not isinstance(raw, bool):
            raw = str(raw)
        text = raw.decode(errors="backslashreplace") if isinstance(raw, bytes) else raw
        return _clean(text) if isinstance(text, str) and text else None

    return RawEnvelope(
        type=attribute("type"),
        id=attribute("id"),
        source=attribute("source"),
        subject=attribute("subject"),
        job_id=_clean(job_id) if isinstance(job_id, str) else attribute("correlationid"),
        time=_time(attribute("time")),
        sequence=_sequence(attribute("sequence")),
        causation_id=attribute("causationid"),
    )


def _object(value: bytes | None) -> dict[str, Any]:
    try:
        body = json.loads(value or b"null")
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _clean(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _time(text: str | None) -> datetime | None:
    try:
        time = datetime.fromisoformat(text or "")
        return time.astimezone(UTC) if time.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _sequence(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > len(str(_LARGEST_SEQUENCE)):
        return None
    number = int(text)
    return number if number <= _LARGEST_SEQUENCE else None
