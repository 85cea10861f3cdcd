"""Recognises own events that come back from the log by their bytes, so that they are not decoded again.

Most records of a busy service are its own events: it has folded them already and only notes their offsets.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from schemas.envelope import Event
from services.chassis.kernel.records import Record
from services.chassis.kernel.transaction.handover import OutboxRow

MOST_EVENTS = 2000
MOST_CHARACTERS = 8 * 1024 * 1024


class _Written(NamedTuple):
    event: Event
    row: OutboxRow


class OwnEvents:
    """The events that this process wrote to the outbox lately, until they come back; of too many the oldest are forgotten.

    A record counts as such an event only if it is, byte for byte, what the relay makes of the outbox row: decoding gives the same event
    then. Whatever is not recognised is decoded, so nothing depends on what is here, and a process that starts knows none.
    """

    def __init__(self) -> None:
        self._written: dict[str, _Written] = {}
        self._characters = 0

    def add(self, events: Sequence[Event], rows: Sequence[OutboxRow]) -> None:
        """Add events with their outbox rows."""
        for event, row in zip(events, rows, strict=True):
            self._forget(event.id)
            self._written[event.id] = _Written(event, row)
            self._characters += len(row.payload)
        while len(self._written) > MOST_EVENTS or self._characters > MOST_CHARACTERS:
            self._forget(next(iter(self._written)))

    def take(self, record: Record, handled: Collection[str]) -> Event | None:
        """Remove and return the event in the record; None if the record must be decoded."""
        if not self._written:
            return None
        raw = next((value for name, value in record.headers if name == "ce_id"), None)
        written = self._written.get(raw.decode(errors="replace")) if raw else None
        if written is None or written.event.type not in handled or not _is(record, written):
            return None
        self._forget(written.event.id)
        return written.event

    def _forget(self, event_id: str) -> None:
        if (gone := self._written.pop(event_id, None)) is not None:
            self._characters -= len(gone.row.payload)


def _is(record: Record, written: _Written) -> bool:
    value, headers = written.row.record
    return record.topic == written.row.topic and list(record.headers) == headers and record.value == value
