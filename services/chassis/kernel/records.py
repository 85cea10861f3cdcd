"""Defines record, partition and record id, and reads events, header names and times from Kafka records."""

import base64
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple, Protocol

from schemas.envelope import Event, Unhandled, decode

_BYTES_MARK = "\ufdd0"
"""A noncharacter code point; after it comes the Base64 of a header name that is not valid text."""
_LAST_MILLISECOND = 253_370_764_799_000
"""The last second of the year 9998, the latest time that can be stored and read back (`schemas.base.LAST_YEAR`)."""
Partition = tuple[str, int]
"""Topic, partition."""
RecordId = tuple[str, int, int]
"""Topic, partition, offset."""


class Logged(NamedTuple):
    """When and where a record was appended; ties are broken by these fields, in this order."""

    appended_at: datetime
    topic: str
    partition: int
    offset: int


class Record(Protocol):
    """The fields of a Kafka record that are read; aiokafka's ConsumerRecord has them."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """Milliseconds since 1970."""
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


def record_id_of(record: Record) -> RecordId:
    """Return the id of a record: its topic, partition and offset."""
    return record.topic, record.partition, record.offset


def logged(record: Record) -> Logged:
    """Return when and where a record was appended."""
    return Logged(appended_at(record), record.topic, record.partition, record.offset)


def named(record_id: RecordId) -> str:
    """Return a record id as text: topic:partition:offset."""
    return ":".join(map(str, record_id))


def parse_record_id(said: str) -> RecordId:
    """Parses a record id that `named` wrote. Raises ValueError."""
    topic, partition, offset = said.rsplit(":", 2) if said.count(":") >= 2 else ("", "", "")
    numbers = [
        int(number) if number.isascii() and number.isdigit() and len(number) < 20 else -1 for number in (partition, offset)
    ]
    if not topic or "\x00" in topic or not (0 <= numbers[0] < 2**31 and 0 <= numbers[1] < 2**63):
        raise ValueError(f"{said[:100]!r}: write a record as topic:partition:offset, such as neuroweaver.jobs:3:41207")
    return topic, numbers[0], numbers[1]


def is_of(record: Record, source: str) -> bool:
    """Return whether the record's headers say that `source` wrote it."""
    return ("ce_source", source.encode()) in record.headers


def is_numbered(record: Record) -> bool:
    """Return whether the record's headers carry a sequence number."""
    return any(name == "ce_sequence" for name, _ in record.headers)


def event_in(record: Record, handled: Collection[str]) -> Event | Unhandled:
    """Decodes the event in a record; every reader uses this function. Raises Unreadable and UnknownVersion (see `decode`)."""
    return decode(record.value, record.headers, handled, appended_at(record), record.topic)


def name_bytes(name: str) -> bytes:
    """Return a header's name as the bytes in the log; bytes that are not UTF-8 are lone surrogates in `name` (PEP 383)."""
    return name.encode("utf-8", "surrogateescape")


def name_shown(name: str) -> str:
    """A header's name for display; bytes that are not UTF-8 are shown as \\x.."""
    return name_bytes(name).decode("utf-8", "backslashreplace")


def name_kept(name: str) -> str:
    """Return a header's name as text that any database or file can store; `name_of_kept` restores it exactly."""
    if name.isascii() and "\x00" not in name:
        return name
    raw = name_bytes(name)
    text = raw.decode("utf-8", "replace")
    if text == name and "\x00" not in text and not text.startswith(_BYTES_MARK):
        return name
    return _BYTES_MARK + base64.b64encode(raw).decode()


def name_of_kept(kept: str) -> str:
    """Restores the header name from the text that `name_kept` returned."""
    if not kept.startswith(_BYTES_MARK):
        return kept
    return base64.b64decode(kept[len(_BYTES_MARK) :]).decode("utf-8", "surrogateescape")


def appended_at(record: Record) -> datetime:
    """Return the record's timestamp; one out of the range that can be stored (a producer may write any) becomes the nearest
    in it."""
    milliseconds = record.timestamp
    if not 0 <= milliseconds <= _LAST_MILLISECOND:
        milliseconds = 0 if milliseconds < 0 else _LAST_MILLISECOND
    return _moment(milliseconds)


@lru_cache(maxsize=4096)
def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
