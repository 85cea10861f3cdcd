"""What is read of a Kafka record, and how its place in the log is named; the same for every reader."""

import base64
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple, Protocol

from schemas.envelope import Event, Unhandled, decode

_BYTES_MARK = "\ufdd0"
"""A code point that is no character: behind it stands the Base64 of a name that is no text."""
_LAST_MILLISECOND = 253_370_764_799_000
"""The last second of the year 9998, the last that is kept and given back (`schemas.base.LAST_YEAR`)."""
Partition = tuple[str, int]
"""Topic, partition."""
RecordId = tuple[str, int, int]
"""Topic, partition, offset."""


class Logged(NamedTuple):
    """Where and when a record was appended: the facts of the log by which ties are broken, in this order."""

    appended_at: datetime
    topic: str
    partition: int
    offset: int


class Record(Protocol):
    """What is read of a Kafka record; aiokafka's ConsumerRecord is one."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """Milliseconds since 1970."""
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


def record_id(record: Record) -> RecordId:
    """Where the record lies."""
    return record.topic, record.partition, record.offset


def logged(record: Record) -> Logged:
    """The facts of the log about a record."""
    return Logged(appended_at(record), record.topic, record.partition, record.offset)


def named(place: RecordId) -> str:
    """A place as people write it: topic:partition:offset."""
    return ":".join(map(str, place))


def place_named(said: str) -> RecordId:
    """The place that `named` wrote. Raises ValueError."""
    topic, partition, offset = said.rsplit(":", 2) if said.count(":") >= 2 else ("", "", "")
    numbers = [
        int(number) if number.isascii() and number.isdigit() and len(number) < 20 else -1 for number in (partition, offset)
    ]
    if not topic or "\x00" in topic or not (0 <= numbers[0] < 2**31 and 0 <= numbers[1] < 2**63):
        raise ValueError(f"{said[:100]!r}: a record is named topic:partition:offset, such as neuroweaver.jobs:3:41207")
    return topic, numbers[0], numbers[1]


def is_of(record: Record, source: str) -> bool:
    """Whether the record's headers say that `source` wrote it."""
    return ("ce_source", source.encode()) in record.headers


def is_numbered(record: Record) -> bool:
    """Whether the record's headers give it a number among the decisions of its source."""
    return any(name == "ce_sequence" for name, _ in record.headers)


def event_in(record: Record, handled: Collection[str]) -> Event | Unhandled:
    """The event in a record, read as everybody here reads it. Raises Unreadable and UnknownVersion (see `decode`)."""
    return decode(record.value, record.headers, handled, appended_at(record), record.topic)


def name_bytes(name: str) -> bytes:
    """A header's name as it lies in the log; what was no UTF-8 there is held as lone surrogates (PEP 383)."""
    return name.encode("utf-8", "surrogateescape")


def name_shown(name: str) -> str:
    """A header's name for people: bytes that are no UTF-8 as \\x.."""
    return name_bytes(name).decode("utf-8", "backslashreplace")


def name_kept(name: str) -> str:
    """A header's name as text that any database or file holds; `name_of_kept` gives it back exactly."""
    if name.isascii() and "\x00" not in name:
        return name
    raw = name_bytes(name)
    text = raw.decode("utf-8", "replace")
    if text == name and "\x00" not in text and not text.startswith(_BYTES_MARK):
        return name
    return _BYTES_MARK + base64.b64encode(raw).decode()


def name_of_kept(kept: str) -> str:
    """The name that was kept as this text."""
    if not kept.startswith(_BYTES_MARK):
        return kept
    return base64.b64decode(kept[len(_BYTES_MARK) :]).decode("utf-8", "surrogateescape")


def appended_at(record: Record) -> datetime:
    """The record's time in the log; one that cannot be kept, which a sender may have written, becomes the nearest that can."""
    milliseconds = record.timestamp
    if not 0 <= milliseconds <= _LAST_MILLISECOND:
        milliseconds = 0 if milliseconds < 0 else _LAST_MILLISECOND
    return _moment(milliseconds)


@lru_cache(maxsize=4096)
def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
