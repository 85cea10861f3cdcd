"""Keeps invalid batches from stopping a consumer: it replaces aiokafka's batch parsing and yields records for any batch.

aiokafka decodes header names while it fetches and decompresses without a bound; if either fails, the consumer stops at all
its partitions for ever. So this module replaces the part of the fetcher that reads batches from a response. A batch is
decompressed up to BATCH_BYTES and parsed by aiokafka's own parser, or, if that fails, by one that accepts any bytes. What
cannot be read at all becomes one record per offset that says why (`parse.unread`), of which the consumer makes a dead
letter. Every record's offset lies within its batch: a sender may write any offset, and trusting it would skip the records
of others.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch

from schemas.json_text import BATCH_BYTES, BATCH_RECORDS, MOST_HEADERS
from services.chassis.kafka.fetch.decompress import CODECS
from services.chassis.kafka.fetch.parse import (
    ATTRIBUTES_AT,
    HEAD_SIZE,
    FetchedRecord,
    Head,
    deltas_of,
    described,
    head_of,
    records_of,
    unread,
)

UNREAD_RECORDS = 1000
"""The most records that replace those of an unreadable batch; the last one replaces all after it."""
_AT_ONCE_BYTES = 2**20
"""A payload of up to this many bytes is parsed at once, which takes at most tens of megabytes and milliseconds. The records
of a larger one are parsed one by one as they are consumed."""
_RECORD_BYTES, _HEADER_BYTES = 200, 64
"""Bytes that an empty record and an empty header take in memory."""
_LEGACY_HEAD = 17
_MAGIC_AT = 16
_CODEC_MASK = 0x07


def survive_any_batch() -> None:
    """Make every aiokafka consumer of this process use this module. Calling it again changes nothing."""
    fetcher.MemoryRecords = Batches


class Batches:
    """The batches of one partition in one fetch response; it replaces aiokafka's MemoryRecords."""

    def __init__(self, raw: bytes) -> None:
        self._raw = memoryview(raw)
        self._at = 0
        self._handed_on = 0

    def size_in_bytes(self) -> int:
        """Return the bytes of the response."""
        return len(self._raw)

    def has_next(self) -> bool:
        """Return whether there is another complete batch. After BATCH_BYTES the rest is left for the next fetch."""
        return self._handed_on < BATCH_BYTES and self._end() is not None

    def next_batch(self) -> "Batch | _Legacy | None":
        """Return the next complete batch; None after the last. Never raises."""
        end = self._end()
        if end is None:
            return None
        raw, behind = self._raw[self._at : end], self._raw[end : end + 8]
        self._at = end
        if raw[_MAGIC_AT] < 2:
            return _Legacy(raw)
        return Batch(raw, int.from_bytes(behind, "big", signed=True) if len(behind) == 8 else None, self._note)

    def _end(self) -> int | None:
        head = self._raw[self._at : self._at + HEAD_SIZE]
        if len(head) <= _MAGIC_AT:
            return None
        end = self._at + 12 + int.from_bytes(head[8:12], "big", signed=True)
        least = _LEGACY_HEAD if head[_MAGIC_AT] < 2 else HEAD_SIZE
        return end if self._at + least <= end <= len(self._raw) else None

    def _note(self, size: int) -> None:
        self._handed_on += size


class Batch:
    """One batch of message format 2, with the interface that aiokafka's fetcher uses; it is decompressed when iterated.

    `following`: the offset at which the next batch begins, if known.
    """

    def __init__(self, raw: memoryview, following: int | None, note: Callable[[int], None]) -> None:
        self._raw, self._note = raw, note
        self._batch = DefaultRecordBatch(raw)
        self._head = head_of(raw)
        self._intact = bool(self._batch.validate_crc())
        self.base_offset: int = self._head.base_offset
        self._counted = self._head.last_offset_delta >= 0 and (
            self._intact or self._head.last_offset_delta + 1 == self._head.records
        )
        self.next_offset: int = self.base_offset + (
            self._head.last_offset_delta + 1 if self._counted else _at_least(self._head, following)
        )
        self.is_control_batch: bool = self._intact and self._batch.is_control_batch
        self.is_transactional: bool = self._intact and self._batch.is_transactional
        self.producer_id: int | None = self._batch.producer_id if self._intact else None

    def validate_crc(self) -> bool:
        """Always pass: a damaged batch is delivered as records that replace its own."""
        return True

    def __next__(self) -> Any:
        """Return the first record of a control batch: the marker of a transaction."""
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        """Return the records, at increasing offsets within the batch's range, or their replacements. Never raises."""
        if not self._counted:
            return self._unread("its head is damaged, so its number of records is unknown", most=1)
        if not self._intact:
            return self._unread("the checksum of its batch is wrong")
        if not 0 <= self._head.records <= BATCH_RECORDS:
            return self._unread(f"its batch has {self._head.records} records, and at most {BATCH_RECORDS} are read")
        try:
            payload = _decompressed(self._head, self._raw[HEAD_SIZE:])
        except ValueError as error:
            return self._unread(f"its batch cannot be decompressed: {error}")
        self._note(len(payload))
        if len(payload) <= _AT_ONCE_BYTES and (records := self._at_once(payload)) is not None:
            return iter(records)
        deltas: Sequence[int] = deltas_of(self._head, payload)
        if not _rise(deltas, self._head):
            if len(deltas) != self.next_offset - self.base_offset:
                return self._unread(f"its batch has {len(deltas)} records whose offsets do not rise within it")
            deltas = range(len(deltas))
        return self._noted(records_of(self._head, payload, deltas))

    def _at_once(self, payload: memoryview) -> list[Any] | None:
        """Return all records as aiokafka's C parser reads them; None if it fails, or if it may not be used for all of
        them."""
        batch = self._batch if not self._head.codec else DefaultRecordBatch(_as_if_plain(self._raw, payload))
        try:
            records = list(batch)
        except Exception:  # such as a header name that is not UTF-8
            return None
        headers = 0
        last = self.base_offset - 1
        for record in records:
            count = len(record.headers)
            if record.offset <= last or count > MOST_HEADERS:
                return None
            headers += count
            last = record.offset
        self._note(_RECORD_BYTES * len(records) + _HEADER_BYTES * headers)
        return records if last < self.next_offset else None

    def _noted(self, records: Iterable[FetchedRecord]) -> Iterator[FetchedRecord]:
        for record in records:
            self._note(_RECORD_BYTES + _HEADER_BYTES * len(record.headers))
            yield record

    def _unread(self, cause: str, most: int = UNREAD_RECORDS) -> Iterator[FetchedRecord]:
        self._note(len(self._raw))
        said = described(cause, self._raw)
        last = min(self.next_offset, self.base_offset + most) - 1
        behind = self.next_offset - 1 - last
        for offset in range(self.base_offset, last + 1):
            more = f"{said}; this record also replaces the next {behind}" if behind and offset == last else said
            yield unread(self._head, offset, more, value=self._raw if offset == self.base_offset else None)


def _at_least(head: Head, following: int | None) -> int:
    """Return the number of offsets of a batch with a damaged head: up to the next batch, or few enough to skip no
    other's."""
    if following is not None and following > head.base_offset:
        return following - head.base_offset
    return min((count for count in (head.records, head.last_offset_delta + 1) if count > 0), default=1)


def _rise(deltas: Sequence[int], head: Head) -> bool:
    """Return whether offsets increase strictly within a batch.

    Brokers do not check uncompressed batches; a compacted log has gaps.
    """
    within = not deltas or (deltas[0] >= 0 and deltas[-1] <= head.last_offset_delta)
    return within and all(one < other for one, other in pairwise(deltas))


def _decompressed(head: Head, payload: memoryview) -> memoryview:
    if not head.codec:
        return payload
    if head.codec not in CODECS:
        raise ValueError(f"its compression {head.codec} is unknown")
    name, decompress = CODECS[head.codec]
    try:
        return memoryview(decompress(payload, BATCH_BYTES))
    except Exception as error:
        raise ValueError(f"{name}: {error}") from None


def _as_if_plain(raw: memoryview, payload: memoryview) -> bytearray:
    """Return the batch as if it had never been compressed, which aiokafka's parser requires."""
    plain = bytearray(raw[:HEAD_SIZE])
    plain[ATTRIBUTES_AT + 1] &= ~_CODEC_MASK & 0xFF
    return plain + payload


class _Legacy:
    """One message of format 0 or 1, from before Kafka 0.11: an uncompressed one is read, another is reported as unread."""

    is_control_batch = False
    is_transactional = False
    producer_id = None

    def __init__(self, raw: memoryview) -> None:
        self._raw = raw
        self.base_offset = int.from_bytes(raw[:8], "big", signed=True)
        self.next_offset = self.base_offset + 1

    def validate_crc(self) -> bool:
        """Always pass, as for a batch of format 2."""
        return True

    def __iter__(self) -> Iterator[Any]:
        """Return the record or its replacement. Never raises."""
        if self._raw[_LEGACY_HEAD] & _CODEC_MASK:
            return iter([self._unread("it is compressed in an obsolete message format")])
        try:
            batch = LegacyRecordBatch(self._raw, self._raw[_MAGIC_AT])
            if not batch.validate_crc():
                return iter([self._unread("its checksum is wrong")])
            return iter(list(batch))
        except Exception as error:
            return iter([self._unread(f"it is damaged: {error}")])

    def _unread(self, cause: str) -> FetchedRecord:
        head = Head(self.base_offset, 0, 0, 0, 0, 0, 0, 0, 0, -1, 0, 0, 1)
        return unread(head, self.base_offset, described(cause, self._raw), value=self._raw)
