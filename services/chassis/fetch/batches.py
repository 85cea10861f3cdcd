"""No batch stops a reader: aiokafka gets every batch through here, and a batch that it cannot parse becomes records all the same.

aiokafka decodes header names while it fetches, decompresses without a bound, and stands where either fails: at every partition
of the consumer, for ever. So this module puts itself where its fetcher takes batches out of a response. A batch is decompressed
up to BATCH_BYTES and parsed by aiokafka's own parser; where that fails, by one that keeps any bytes. What cannot be read at all is
one record per offset that says why (`parse.unread`): its reader makes a dead letter of it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch

from schemas.json_text import BATCH_BYTES
from services.chassis.fetch.decompress import CODECS
from services.chassis.fetch.parse import (
    ATTRIBUTES_AT,
    HEAD_SIZE,
    KEPT_BYTES,
    FetchedRecord,
    Head,
    described,
    head_of,
    records_of,
    unread,
)

UNREAD_RECORDS = 1000
"""So many records stand for those of a batch that cannot be read; the last of them for all that are behind it."""
_LEGACY_HEAD = 17
_MAGIC_AT = 16
_CODEC_MASK = 0x07


def survive_any_batch() -> None:
    """From now on every aiokafka consumer of this process reads through here. Doing it again changes nothing."""
    fetcher.MemoryRecords = Batches


class Batches:
    """The batches of one partition in one fetch response; takes the place of aiokafka's MemoryRecords."""

    def __init__(self, raw: bytes) -> None:
        self._raw = memoryview(raw)
        self._at = 0
        self._handed_on = 0

    def size_in_bytes(self) -> int:
        """Bytes of the response."""
        return len(self._raw)

    def has_next(self) -> bool:
        """Whether another whole batch is there. After BATCH_BYTES the rest is left for the next fetch."""
        return self._handed_on < BATCH_BYTES and self._end() is not None

    def next_batch(self) -> "Batch | _Legacy | None":
        """The next whole batch; None behind the last. Never raises."""
        end = self._end()
        if end is None:
            return None
        raw = self._raw[self._at : end]
        self._at = end
        if raw[_MAGIC_AT] < 2:
            return _Legacy(raw)
        return Batch(raw, self._note)

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
    """One batch of message format 2 with what aiokafka's fetcher asks of it. Nothing is decompressed before it is iterated."""

    def __init__(self, raw: memoryview, note: Callable[[int], None]) -> None:
        self._raw, self._note = raw, note
        self._batch = DefaultRecordBatch(raw)
        self._intact = bool(self._batch.validate_crc())
        self.base_offset: int = self._batch.base_offset
        self.next_offset: int = self._batch.next_offset
        self.is_control_batch: bool = self._intact and self._batch.is_control_batch
        self.is_transactional: bool = self._intact and self._batch.is_transactional
        self.producer_id: int | None = self._batch.producer_id if self._intact else None

    def validate_crc(self) -> bool:
        """A damaged batch is handed on as what stands for its records, unless not even its head says how many those are."""
        return self._intact or 0 < self.next_offset - self.base_offset == head_of(self._raw).records

    def __next__(self) -> Any:
        """The first record of a control batch: the marker of a transaction."""
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        """The records, or what stands for them. Never raises."""
        if self._intact and not self._batch.compression_type and len(self._raw) <= KEPT_BYTES:
            self._note(len(self._raw))
            try:
                return iter(list(self._batch))
            except Exception:  # such as a header name that is no UTF-8
                return records_of(head_of(self._raw), self._raw[HEAD_SIZE:])
        return self._with_care(head_of(self._raw))

    def _with_care(self, head: Head) -> Iterator[Any]:
        if not self._intact:
            return self._unread(head, "the checksum of its batch is wrong")
        try:
            payload = _decompressed(head, self._raw[HEAD_SIZE:])
        except ValueError as error:
            return self._unread(head, f"its batch cannot be decompressed: {error}")
        self._note(len(payload))
        records = _parsed(head, self._raw, payload)
        return iter(records) if len(payload) <= KEPT_BYTES else (_bounded(head, record) for record in records)

    def _unread(self, head: Head, cause: str) -> Iterator[FetchedRecord]:
        self._note(len(self._raw))
        said = described(cause, self._raw)
        yield unread(head, self.base_offset, said, value=self._raw)
        last = min(self.next_offset, self.base_offset + UNREAD_RECORDS) - 1
        for offset in range(self.base_offset + 1, last):
            yield unread(head, offset, said)
        if last > self.base_offset:
            behind = self.next_offset - 1 - last
            yield unread(head, last, f"{said}; this stands for {behind} more behind it" if behind else said)


def _decompressed(head: Head, payload: memoryview) -> memoryview:
    if not head.codec:
        return payload
    if head.codec not in CODECS:
        raise ValueError(f"there is no compression of number {head.codec}")
    name, decompress = CODECS[head.codec]
    try:
        return memoryview(decompress(payload, BATCH_BYTES))
    except Exception as error:
        raise ValueError(f"{name}: {error}") from None


def _parsed(head: Head, raw: memoryview, payload: memoryview) -> Iterable[Any]:
    """aiokafka's parser is in C, and wants the batch as if it had never been compressed."""
    plain = bytearray(raw[:HEAD_SIZE])
    plain[ATTRIBUTES_AT + 1] &= ~_CODEC_MASK & 0xFF
    plain += payload
    try:
        return list(DefaultRecordBatch(plain))
    except Exception:
        return records_of(head, payload)


def _bounded(head: Head, record: Any) -> Any:
    size = len(record.key or b"") + len(record.value or b"")
    size += sum(len(name) + len(value or b"") for name, value in record.headers)
    if size <= KEPT_BYTES:
        return record
    said = described(f"the record has {size} bytes, and up to {KEPT_BYTES} are read; of its value", record.value or b"")
    return unread(head, record.offset, said, key=record.key, timestamp=record.timestamp)


class _Legacy:
    """One message of format 0 or 1, of a log that is older than Kafka 0.11: not compressed it is read, otherwise said to be unread."""

    is_control_batch = False
    is_transactional = False
    producer_id = None

    def __init__(self, raw: memoryview) -> None:
        self._raw = raw
        self.base_offset = int.from_bytes(raw[:8], "big", signed=True)
        self.next_offset = self.base_offset + 1

    def validate_crc(self) -> bool:
        """As for a batch of format 2."""
        return True

    def __iter__(self) -> Iterator[Any]:
        """The record, or what stands for it. Never raises."""
        if self._raw[_LEGACY_HEAD] & _CODEC_MASK:
            return iter([self._unread("it is compressed in a message format that nobody writes any more")])
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
