"""The records of a batch read with tolerance: bytes that are no UTF-8 in a header's name are kept, damage stays with its record.

https://kafka.apache.org/documentation/#recordbatch
"""

import hashlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

from schemas.attributes import UNREAD_HEADER
from schemas.json_text import READ_BYTES

_HEAD = struct.Struct(">qiibIhiqqqhii")
HEAD_SIZE = _HEAD.size
ATTRIBUTES_AT = 21
KEPT_BYTES = READ_BYTES
"""So many bytes of a record, or of what could not be read, are handed on at most: key, value, header names and values."""
_KEPT_KEY = 1024
_LOG_APPEND_TIME = 0x08


class Malformed(ValueError):
    """Bytes that are no record."""


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
        """1 where the times are the broker's, 0 where they are the senders'."""
        return int(bool(self.attributes & _LOG_APPEND_TIME))


class FetchedRecord(NamedTuple):
    """A record as aiokafka's fetcher wants it."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: None = None


def head_of(batch: memoryview) -> Head:
    """Raises struct.error where it is too short."""
    return Head(*_HEAD.unpack_from(batch))


def records_of(head: Head, payload: memoryview) -> Iterator[FetchedRecord]:
    """Every record of a decompressed payload; for one that cannot be read, a record that says so."""
    at, offset = 0, head.base_offset
    for number in range(head.records):
        try:
            length, start = _varint(payload, at)
            end = start + length
            if length < 0 or end > len(payload):
                raise Malformed(f"a record of {length} bytes where {len(payload) - start} are left")
        except Malformed as error:
            said = described(f"its batch is damaged: {error}", payload[at:])
            yield from (unread(head, offset + behind, said) for behind in range(head.records - number))
            return
        raw = payload[start:end]
        try:
            record = _record(head, raw)
        except Malformed as error:
            record = unread(head, offset, described(f"the record is damaged: {error}", raw), value=raw)
        yield record
        at, offset = end, record.offset + 1


def described(cause: str, raw: bytes | memoryview) -> str:
    """Why bytes are not read, and which bytes they are."""
    return f"{cause}; {len(raw)} bytes, SHA-256 {hashlib.sha256(raw).hexdigest()}"


def unread(
    head: Head,
    offset: int,
    said: str,
    *,
    key: bytes | None = None,
    value: memoryview | None = None,
    timestamp: int | None = None,
) -> FetchedRecord:
    """Stands for a record that cannot be read: a header says why; `value` is what there is of it, unless that is too much."""
    return FetchedRecord(
        offset,
        head.max_timestamp if timestamp is None else timestamp,
        head.timestamp_type,
        key if key is not None and len(key) <= _KEPT_KEY else None,
        bytes(value) if value is not None and len(value) <= KEPT_BYTES else None,
        [(UNREAD_HEADER, said.encode())],
    )


def _record(head: Head, raw: memoryview) -> FetchedRecord:
    _, at = _varint(raw, 0)  # attributes: one byte, unused
    timestamp_delta, at = _varint(raw, at)
    offset_delta, at = _varint(raw, at)
    key, at = _bytes(raw, at)
    value, at = _bytes(raw, at)
    count, at = _varint(raw, at)
    if count < 0:
        raise Malformed(f"{count} headers")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        name, at = _bytes(raw, at)
        if name is None:
            raise Malformed("a header without a name")
        held, at = _bytes(raw, at)
        headers.append((name.decode("utf-8", "surrogateescape"), held))
    if at != len(raw):
        raise Malformed(f"{len(raw) - at} bytes behind the last header")
    timestamp = head.max_timestamp if head.timestamp_type else head.first_timestamp + timestamp_delta
    return FetchedRecord(head.base_offset + offset_delta, timestamp, head.timestamp_type, key, value, headers)


def _bytes(raw: memoryview, at: int) -> tuple[bytes | None, int]:
    length, at = _varint(raw, at)
    if length < 0:
        return None, at
    if at + length > len(raw):
        raise Malformed(f"a field of {length} bytes where {len(raw) - at} are left")
    return bytes(raw[at : at + length]), at + length


def _varint(raw: memoryview, at: int) -> tuple[int, int]:
    """A zigzag variable-length integer and where the next byte lies."""
    value = shift = 0
    while True:
        if at >= len(raw):
            raise Malformed("the bytes end within a number")
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
        if shift > 63:
            raise Malformed("a number of more than 64 bits")
