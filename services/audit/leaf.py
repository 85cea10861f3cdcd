"""Encodes a record as one unambiguous byte string, so that no two different records have the same hash (docs/audit.md).

All numbers are big-endian; a text or byte string is its length as a signed 32-bit number, -1 for null, then its bytes.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from services.chassis.kernel.records import name_bytes

VERSION = b"NWLEAF01"
"""First bytes of every leaf; another version of the encoding would begin differently."""

Headers = Sequence[tuple[str, bytes | None]]


class RawRecord(NamedTuple):
    """The stored parts of a Kafka record."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """The broker's time, in milliseconds since 1970."""
    key: bytes | None
    value: bytes | None
    headers: Headers


def leaf_bytes(record: RawRecord) -> bytes:
    """Version, topic, partition (32 bits), offset, timestamp (64 bits each), key, number of headers, names and values, value."""
    parts = [
        VERSION,
        _string(record.topic.encode()),
        struct.pack(">iqq", record.partition, record.offset, record.timestamp),
        _string(record.key),
        struct.pack(">i", len(record.headers)),
    ]
    for name, value in record.headers:
        parts += [_string(name_bytes(name)), _string(value)]
    parts.append(_string(record.value))
    return b"".join(parts)


def _string(raw: bytes | None) -> bytes:
    return struct.pack(">i", -1) if raw is None else struct.pack(">i", len(raw)) + raw
