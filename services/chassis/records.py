"""Why: what is read of a Kafka record, and how its place in the log is named; the same for every reader."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

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
    """The record's time in the log."""
    return datetime.fromtimestamp(record.timestamp / 1000, UTC)
