"""Parses a batch's records tolerantly: non-UTF-8 bytes in a header's name are kept, and damage affects only its record.

A record is built only after its size and number of headers are known, because an empty header takes fifty times as many
bytes in memory as in the log.

https://kafka.apache.org/documentation/#recordbatch
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from schemas.attributes import UNREAD_HEADER
from schemas.json_text import MOST_HEADERS, READ_BYTES

_HEAD = struct.Struct(">qiibIhiqqqhii")
HEAD_SIZE = _HEAD.size
ATTRIBUTES_AT = 21
KEPT_BYTES = READ_BYTES
"""The most bytes of a record, or of unreadable data, that are delivered: key, value, header names and values."""
_KEPT_KEY = 1024
_LOG_APPEND_TIME = 0x08


class MalformedRecord(ValueError):
    """The bytes are not a record."""


class Head(NamedTuple):
    """The head of a batch of message format 2."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: int

    @property
    def codec(self) -> int:
        """Number of the compression; 0 for none."""
        return self.attributes & 0x07

    @property
    def timestamp_type(self) -> int:
        """1 if the times are the broker's, 0 if they are the senders'."""
        return int(bool(self.attributes & _LOG_APPEND_TIME))


class FetchedRecord(NamedTuple):
    """A record in the form that aiokafka's fetcher requires."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: None = None


def head_of(batch: memoryview) -> Head:
    """Parse the head of a batch. Raises struct.error if it is too short."""
    return Head(*_HEAD.unpack_from(batch))


def deltas_of(head: Head, payload: memoryview) -> list[int]:
    """Each record's stated distance from the base offset, in a decompressed payload; for a damaged record, the next one."""
    deltas: list[int] = []
    behind = 0
    try:
        for raw, _ in _raw_records(head, payload):
            try:
                delta = _shape_of(raw).offset_delta
            except MalformedRecord:
                delta = behind
            deltas.append(delta)
            behind = delta + 1
    except MalformedRecord:
        deltas += range(behind, behind + head.records - len(deltas))
    return deltas


def records_of(head: Head, payload: memoryview, deltas: Sequence[int]) -> Iterator[FetchedRecord]:
    """All records of a decompressed payload, at these distances from the base offset; an unreadable one is replaced."""
    at = number = 0
    try:
        for number, (raw, end) in enumerate(_raw_records(head, payload), 1):
            offset, at = head.base_offset + deltas[number - 1], end
            try:
                yield _record(head, offset, raw)
            except MalformedRecord as error:
                yield unread(head, offset, described(f"the record is damaged: {error}", raw), value=raw)
    except MalformedRecord as error:
        said = described(f"its batch is damaged: {error}", payload[at:])
        yield from (unread(head, head.base_offset + delta, said) for delta in deltas[number:])


def described(cause: str, raw: bytes | memoryview, what: str = "it") -> str:
    """Describe why something is not read, and its bytes."""
    return f"{cause}; {what} has {len(raw)} bytes with SHA-256 {hashlib.sha256(raw).hexdigest()}"


def unread(
    head: Head,
    offset: int,
    said: str,
    *,
    key: bytes | None = None,
    value: memoryview | None = None,
    timestamp: int | None = None,
) -> FetchedRecord:
    """The replacement of an unreadable record: a header says why; `value` has its bytes, unless they are too many."""
    return FetchedRecord(
        offset,
        head.max_timestamp if timestamp is None else timestamp,
        head.timestamp_type,
        key if key is not None and len(key) <= _KEPT_KEY else None,
        bytes(value) if value is not None and len(value) <= KEPT_BYTES else None,
        [(UNREAD_HEADER, said.encode())],
    )


class _Shape(NamedTuple):
    """The positions of a record's parts. None means a null key or value."""

    timestamp_delta: int
    offset_delta: int
    key: slice | None
    value: slice | None
    headers: int
    headers_at: int


def _raw_records(head: Head, payload: memoryview) -> Iterator[tuple[memoryview, int]]:
    """Each record without its length, and the start of the next one. Raises MalformedRecord if that is unknown."""
    at = 0
    for _ in range(head.records):
        length, start = _varint(payload, at)
        at = start + length
        if length < 0 or at > len(payload):
            raise MalformedRecord(f"a record of {length} bytes where {len(payload) - start} are left")
        yield payload[start:at], at


def _shape_of(raw: memoryview) -> _Shape:
    _, at = _varint(raw, 0)  # attributes: one byte, unused
    timestamp_delta, at = _varint(raw, at)
    offset_delta, at = _varint(raw, at)
    key, at = _field(raw, at)
    value, at = _field(raw, at)
    headers, at = _varint(raw, at)
    if headers < 0:
        raise MalformedRecord(f"{headers} headers")
    return _Shape(timestamp_delta, offset_delta, key, value, headers, at)


def _record(head: Head, offset: int, raw: memoryview) -> FetchedRecord:
    shape = _shape_of(raw)
    timestamp = head.max_timestamp if head.timestamp_type else head.first_timestamp + shape.timestamp_delta
    if too_much := _too_much(shape, raw):
        key = _taken(raw, shape.key) if shape.key and shape.key.stop - shape.key.start <= _KEPT_KEY else None
        kept = raw[shape.value] if shape.value else raw[:0]
        said = described(f"the record has {too_much} are read", kept, "its value")
        return unread(head, offset, said, key=key, value=kept, timestamp=timestamp)
    at = shape.headers_at
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(shape.headers):
        name, at = _field(raw, at)
        if name is None:
            raise MalformedRecord("a header without a name")
        held, at = _field(raw, at)
        headers.append((str(raw[name], "utf-8", "surrogateescape"), _taken(raw, held)))
    if at != len(raw):
        raise MalformedRecord(f"{len(raw) - at} bytes after the last header")
    key, value = _taken(raw, shape.key), _taken(raw, shape.value)
    return FetchedRecord(offset, timestamp, head.timestamp_type, key, value, headers)


def _too_much(shape: _Shape, raw: memoryview) -> str:
    """Which part of a record exceeds its bound; empty if none does."""
    if len(raw) > KEPT_BYTES:
        return f"{len(raw)} bytes, and up to {KEPT_BYTES}"
    return f"{shape.headers} headers, and up to {MOST_HEADERS}" if shape.headers > MOST_HEADERS else ""


def _taken(raw: memoryview, part: slice | None) -> bytes | None:
    return None if part is None else bytes(raw[part])


def _field(raw: memoryview, at: int) -> tuple[slice | None, int]:
    length, at = _varint(raw, at)
    if length < 0:
        return None, at
    if at + length > len(raw):
        raise MalformedRecord(f"a field of {length} bytes where {len(raw) - at} are left")
    return slice(at, at + length), at + length


def _varint(raw: memoryview, at: int) -> tuple[int, int]:
    """A zigzag variable-length integer and the position after it."""
    value = shift = 0
    while True:
        if at >= len(raw):
            raise MalformedRecord("the bytes end within a number")
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
        if shift > 63:
            raise MalformedRecord("a number of more than 64 bits")
