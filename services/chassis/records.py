"""Why: what is read of a Kafka record, and how its place in the log is named; the same for every reader."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

_LAST_MILLISECOND = 253_402_300_799_000
"""The last second of the year 9999."""
Partition = tuple[str, int]
"""Topic, partition."""
Place = tuple[str, int, int]
"""Topic, partition, offset."""


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


def place_of(record: Record) -> Place:
    """Where the record lies."""
    return record.topic, record.partition, record.offset


def named(place: Place) -> str:
    """A place as people write it: topic:partition:offset."""
    return ":".join(map(str, place))


def appended_at(record: Record) -> datetime:
    """The record's time in the log; one that no calendar has, which a sender may have written, becomes the nearest that it has."""
    return datetime.fromtimestamp(min(max(record.timestamp, 0), _LAST_MILLISECOND) / 1000, UTC)
