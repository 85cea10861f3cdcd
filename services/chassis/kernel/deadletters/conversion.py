"""Converts records into rows of dead letters, and rows into the stored letter or into what operators see. Pure."""

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from schemas.envelope import Event
from services.chassis.kernel.deadletters.models import DeadLetter, DeadLetterSummary, Fault, Letter, LetterState
from services.chassis.kernel.records import Record, appended_at, name_kept, name_of_kept, name_shown

_TEXT_CHARACTERS = 8000


def row_of(
    record: Record,
    state: LetterState,
    fault: Fault,
    *,
    names: Iterable[str] = (),
    blocked_by: int | None = None,
    event: Event | None = None,
) -> dict[str, object]:
    """The row that stores `record`."""
    headers = [
        [name_kept(name), None if value is None else base64.b64encode(value).decode()] for name, value in record.headers
    ]
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "state": state,
        "key": record.key,
        "value": record.value,
        "headers": json.dumps(headers),
        "event_type": event.type if event else None,
        "event_id": event.id if event else None,
        "correlation_id": event.correlation_id if event else None,
        "error": storable_text(fault.error),
        "stack": fault.stack and storable_text(fault.stack),
        "attempts": fault.attempts,
        "names": sorted(names),
        "blocked_by": blocked_by,
        "appended_at": appended_at(record),
    }


def storable_text(text: str) -> str:
    """Text as PostgreSQL can store it, cut to a maximum length."""
    return text[:_TEXT_CHARACTERS].replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def headers_of(encoded: str) -> tuple[tuple[str, bytes | None], ...]:
    """The headers of a stored record, decoded."""
    return tuple(
        (name_of_kept(name), None if value is None else base64.b64decode(value)) for name, value in json.loads(encoded)
    )


def letter_of(row: Mapping[Any, Any]) -> Letter:
    """The stored letter of a row."""
    return Letter(
        topic=row["topic"],
        partition=row["partition"],
        offset=row["offset"],
        timestamp=round(row["appended_at"].timestamp() * 1000),
        key=row["key"],
        value=row["value"],
        headers=headers_of(row["headers"]),
        state=row["state"],
        names=frozenset(row["names"]),
        event_type=row["event_type"],
        event_id=row["event_id"],
        correlation_id=row["correlation_id"],
        error=row["error"],
        attempts=row["attempts"],
        appended_at=row["appended_at"],
    )


def summary_of(row: Mapping[Any, Any]) -> DeadLetterSummary:
    """What a list shows of a row."""
    known = {name: row[name] for name in DeadLetterSummary.model_fields if name in row}
    return DeadLetterSummary(**{**known, "key": _text(row["key"]), "job_id": row["correlation_id"]})


def view_of(row: Mapping[Any, Any]) -> DeadLetter:
    """All that operators see of a row."""
    known = {name: row[name] for name in DeadLetter.model_fields if name in row}
    known["value_bytes"] = None if row["value"] is None else len(row["value"])
    known["key"], known["value"] = _text(row["key"]), _text(row["value"])
    known["headers"] = tuple((name_shown(name), _text(value) or "") for name, value in headers_of(row["headers"]))
    return DeadLetter(**known, job_id=row["correlation_id"])


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "backslashreplace")
