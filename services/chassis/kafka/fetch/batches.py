"""No batch stops a reader: aiokafka gets every batch through here, and a batch that it cannot parse becomes records all the same.

aiokafka decodes header names while it fetches, decompresses without a bound, and stands where either fails: at every partition
of the consumer, for ever. So this module puts itself where its fetcher takes batches out of a response. A batch is decompressed
up to BATCH_BYTES and parsed by aiokafka's own parser; where that fails, by one that keeps any bytes. What cannot be read at all is
one record per offset that says why (`parse.unread`): its reader makes a dead letter of it. No record is at an offset that is not its
batch's: a sender may write any, and a reader that believed it would pass over the records of others.
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
"""So many records stand for those of a batch that cannot be read; the last of them for all that are behind it."""
_AT_ONCE_BYTES = 2**20
"""A payload of so many bytes is parsed at once; whatever it holds, that takes tens of megabytes and milliseconds. Of a larger one, each
record is parsed when it is handed on."""
_RECORD_BYTES, _HEADER_BYTES = 200, 64
"""What a record and a header take here, however empty."""
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
    """One batch of message format 2 with what aiokafka's fetcher asks of it. Nothing is decompressed before it is iterated.

    `following`: where the next batch begins, where that is known.
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
        """A damaged batch is handed on as what stands for its records."""
        return True

    def __next__(self) -> Any:
        """The first record of a control batch: the marker of a transaction."""
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        """The records, at offsets that rise within the batch's own, or what stands for them. Never raises."""
        if not self._counted:
            return self._unread("its head is damaged, and how many records it has is not known", most=1)
        if not self._intact:
            return self._unread("the checksum of its batch is wrong")
        if not 0 <= self._head.records <= BATCH_RECORDS:
            return self._unread(f"its batch has {self._head.records} records, and up to {BATCH_RECORDS} are read")
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
        """The records as aiokafka's parser in C reads them, all of them; None where that fails, or not all may be read so."""
        batch = self._batch if not self._head.codec else DefaultRecordBatch(_as_if_plain(self._raw, payload))
        try:
            records = list(batch)
        except Exception:  # such as a header name that is no UTF-8
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
            more = f"{said}; this stands for {behind} more behind it" if behind and offset == last else said
            yield unread(self._head, offset, more, value=self._raw if offset == self.base_offset else None)


def _at_least(head: Head, following: int | None) -> int:
    """How many offsets a batch with a damaged head takes: up to the next batch; otherwise so many that no other's is passed over."""
    if following is not None and following > head.base_offset:
        return following - head.base_offset
    return min((count for count in (head.records, head.last_offset_delta + 1) if count > 0), default=1)


def _rise(deltas: Sequence[int], head: Head) -> bool:
    """Whether offsets rise strictly within a batch. A broker does not look at them where nothing is compressed; a compacted log has gaps."""
    within = not deltas or (deltas[0] >= 0 and deltas[-1] <= head.last_offset_delta)
    return within and all(one < other for one, other in pairwise(deltas))


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


def _as_if_plain(raw: memoryview, payload: memoryview) -> bytearray:
    """aiokafka's parser wants a batch as if it had never been compressed."""
    plain = bytearray(raw[:HEAD_SIZE])
    plain[ATTRIBUTES_AT + 1] &= ~_CODEC_MASK & 0xFF
    return plain + payload


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
