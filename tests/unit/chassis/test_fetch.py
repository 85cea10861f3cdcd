"""Whatever lies in a fetch response, aiokafka's fetcher gets a record for every offset, in bounded memory."""

import random
import struct
import tracemalloc
import zlib
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from schemas.attributes import UNREAD_HEADER
from schemas.envelope import Unreadable, decode
from schemas.json_text import BATCH_BYTES, BATCH_RECORDS, MOST_HEADERS
from services.chassis.kafka.fetch.batches import UNREAD_RECORDS, Batches
from services.chassis.kafka.fetch.decompress import CODECS as DECOMPRESS
from services.chassis.kafka.fetch.decompress import TooLarge
from services.chassis.kafka.fetch.parse import HEAD_SIZE, KEPT_BYTES
from services.chassis.kernel.records import appended_at, name_bytes, name_kept, name_of_kept, name_shown
from tests.raw_batches import CODECS, RawRecord, batch_of, compressed, encoded_record, varint

PLACE = TopicPartition("t", 0)
_LARGE = 2**20
"""So many bytes of payload are not parsed at once any more."""


def fetched(raw: bytes, first: int = 0, aborted: list[tuple[int, int]] | None = None) -> tuple[list[Any], int]:
    """What the fetcher hands on, and the offset at which it goes on."""
    records = PartitionRecords(PLACE, Batches(raw), aborted, first, None, None, True, READ_COMMITTED)
    return list(records), records.next_fetch_offset


def said(record: Any) -> str:
    """Why a record is not read, as its dead letter says it."""
    with pytest.raises(Unreadable) as caught:
        decode(record.value, record.headers, (), appended_at(record))
    return str(caught.value)


RAW = st.builds(
    RawRecord,
    st.none() | st.binary(max_size=40),
    st.lists(st.tuples(st.binary(max_size=12), st.none() | st.binary(max_size=12)), max_size=4),
    st.none() | st.binary(max_size=12),
)


@given(st.lists(st.tuples(st.lists(RAW, min_size=1, max_size=4), st.sampled_from(CODECS)), min_size=1, max_size=4))
def test_every_byte_of_every_record_comes_through(batches: list[tuple[list[RawRecord], str]]) -> None:
    raw = b""
    wanted: list[RawRecord] = []
    for records, codec in batches:
        raw += batch_of(records, codec=codec, base_offset=len(wanted))
        wanted += records
    found, end = fetched(raw)
    assert [record.offset for record in found] == list(range(len(wanted)))
    assert end == len(wanted)
    for record, written in zip(found, wanted, strict=True):
        headers = [(name_bytes(name), value) for name, value in record.headers]
        assert (record.key, record.value, headers) == (written.key, written.value, list(written.headers))


@given(st.binary(max_size=20))
def test_a_header_name_is_kept_as_text_and_given_back(raw: bytes) -> None:
    name = raw.decode("utf-8", "surrogateescape")
    kept = name_kept(name)
    assert name_of_kept(kept) == name
    assert "\x00" not in kept
    kept.encode()
    name_shown(name).encode()


@given(st.binary(max_size=200), st.integers(0, 3), st.sampled_from(CODECS))
def test_any_damage_within_a_batch_leaves_one_record_per_offset(damage: bytes, at: int, codec: str) -> None:
    records = [RawRecord(b"v" * 30, [(b"n", b"h")], b"k") for _ in range(5)]
    payload = b"".join(encoded_record(record, number) for number, record in enumerate(records))
    spoilt = payload[: at * 10] + damage + payload[at * 10 + len(damage) :]
    found, end = fetched(batch_of(records, codec=codec, payload=spoilt))
    assert end == 5
    assert len(found) <= 5
    for record in found:
        if any(name == UNREAD_HEADER for name, _ in record.headers):
            said(record)


def test_a_damaged_record_leaves_its_neighbours_alone() -> None:
    good = [RawRecord(b"one"), RawRecord(b"two"), RawRecord(b"three")]
    parts = [encoded_record(record, number) for number, record in enumerate(good)]
    middle = bytearray(parts[1])
    middle[-1] = 0x7F  # it says that 63 negative headers follow
    found, _ = fetched(batch_of(good, payload=parts[0] + bytes(middle) + parts[2], codec="gzip"))
    assert [record.offset for record in found] == [0, 1, 2]
    assert (found[0].value, found[2].value) == (b"one", b"three")
    assert "the record is damaged" in said(found[1])
    assert found[1].value == bytes(middle[1:])


def test_a_wrong_checksum_is_said_of_every_record_and_the_bytes_are_kept() -> None:
    raw = bytearray(batch_of([RawRecord(b"one"), RawRecord(b"two")]))
    raw[-3] ^= 0xFF
    found, end = fetched(bytes(raw) + batch_of([RawRecord(b"three")], base_offset=2))
    assert [record.offset for record in found] == [0, 1, 2]
    assert end == 3
    assert "checksum" in said(found[0])
    assert "SHA-256" in said(found[1])
    assert (found[0].value, found[1].value, found[2].value) == (bytes(raw), None, b"three")


@pytest.mark.parametrize(("at", "value"), [(23, 1_000_000), (23, -7), (57, 1_000_000), (57, 0)])
def test_for_a_batch_whose_head_is_damaged_one_record_stands_and_none_behind_it_is_passed_over(at: int, value: int) -> None:
    raw = bytearray(batch_of([RawRecord(b"one"), RawRecord(b"two")]))
    struct.pack_into(">i", raw, at, value)  # offsets and records that it says it has
    found, end = fetched(bytes(raw))
    assert [record.offset for record in found] == [0]
    assert 1 <= end <= 2
    assert "its head is damaged" in said(found[0])
    found, end = fetched(bytes(raw) + batch_of([RawRecord(b"three")], base_offset=2))
    assert [record.offset for record in found] == [0, 2]
    assert end == 3


def at_deltas(*deltas: int) -> dict[str, Any]:
    """A batch whose records say that they lie so far from its base."""
    records = [RawRecord(f"record {number}".encode()) for number in range(len(deltas))]
    payload = b"".join(encoded_record(record, delta) for record, delta in zip(records, deltas, strict=True))
    return {"records": records, "payload": payload}


ODD_DELTAS = [(0, 0), (0, -5), (1, 0), (7,), (0, 3), (0, 2**31 - 1), (2**62,), (-1, 0, 1), (0, 1, 1)]


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("odd_name", [False, True], ids=["plain", "odd"])
@pytest.mark.parametrize("deltas", ODD_DELTAS)
def test_a_sender_does_not_choose_the_offsets_of_its_records(deltas: tuple[int, ...], odd_name: bool, large: bool) -> None:
    """A broker does not look at them where nothing is compressed."""
    batch = at_deltas(*deltas)
    size = _LARGE if large else 1
    last = encoded_record(RawRecord(b"x" * size, [(b"\xff" if odd_name else b"n", None)]), deltas[0])
    batch["payload"] = last + b"".join(
        encoded_record(record, delta) for record, delta in zip(batch["records"][1:], deltas[1:], strict=True)
    )
    raw = batch_of(**batch, base_offset=10)
    found, end = fetched(raw + batch_of([RawRecord(b"behind")], base_offset=10 + len(deltas)), first=10)
    assert [record.offset for record in found] == list(range(10, 11 + len(deltas)))
    assert end == 11 + len(deltas)
    assert [record.value for record in found[1:-1]] == [record.value for record in batch["records"][1:]]
    assert found[-1].value == b"behind"


@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_a_compacted_batch_keeps_its_gaps(codec: str) -> None:
    found, end = fetched(batch_of(**at_deltas(1, 4, 6), last_delta=9, codec=codec))
    assert ([record.offset for record in found], end) == ([1, 4, 6], 10)


def test_offsets_that_fall_where_some_are_missing_are_not_guessed() -> None:
    found, end = fetched(batch_of(**at_deltas(4, 1), last_delta=9))
    assert ([record.offset for record in found], end) == (list(range(10)), 10)
    assert "do not rise" in said(found[0])


@pytest.mark.parametrize("codec", CODECS[1:])
def test_what_cannot_be_decompressed_is_said(codec: str) -> None:
    records = [RawRecord(b"one"), RawRecord(b"two")]
    cut_off = batch_of(records, codec=codec)[HEAD_SIZE:-4]
    found, end = fetched(batch_of(records, payload=cut_off, attributes=CODECS.index(codec)))
    assert len(found) == end == 2
    assert codec in said(found[0])


def test_a_codec_that_does_not_exist_is_said() -> None:
    found, _ = fetched(batch_of([RawRecord(b"one")], attributes=6))
    assert "its compression 6 is unknown" in said(found[0])


@pytest.mark.parametrize("codec", CODECS[1:])
def test_a_batch_is_not_decompressed_beyond_its_bound(codec: str) -> None:
    payload = b"x" * (BATCH_BYTES + 1)
    packed = compressed(payload, codec)
    raw = batch_of([RawRecord(b"")] * 2, codec="none", payload=packed, attributes=CODECS.index(codec))
    del payload
    tracemalloc.start()
    found, end = fetched(raw)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == end == 2
    assert f"more than {BATCH_BYTES} bytes" in said(found[0])
    assert peak < 4 * BATCH_BYTES


@pytest.mark.parametrize("codec", CODECS[1:])
def test_the_bound_of_a_codec_is_exact(codec: str) -> None:
    decompress = DECOMPRESS[CODECS.index(codec)][1]
    for data in (b"", b"a", b"a" * 70_000, random.Random(1).randbytes(70_000)):
        packed = memoryview(compressed(data, codec))
        assert decompress(packed, len(data)) == data
        if data:
            with pytest.raises(TooLarge):
                decompress(packed, len(data) - 1)


def test_gzip_may_have_several_members_and_snappy_several_blocks() -> None:
    members = zlib.compress(b"one", wbits=31) + zlib.compress(b"two", wbits=31)
    assert DECOMPRESS[1][1](memoryview(members + b"\x00" * 8), 6) == b"onetwo"
    with pytest.raises(TooLarge):
        DECOMPRESS[1][1](memoryview(members), 5)
    blocks = [compressed(text, "snappy") for text in (b"one", b"two")]
    xerial = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1) + b"".join(struct.pack(">i", len(b)) + b for b in blocks)
    assert DECOMPRESS[2][1](memoryview(xerial), 6) == b"onetwo"
    with pytest.raises(TooLarge):
        DECOMPRESS[2][1](memoryview(xerial), 5)


def test_a_batch_of_very_many_records_that_cannot_be_read_does_not_become_as_many_dead_letters() -> None:
    found, end = fetched(batch_of([RawRecord(b"")] * 5000, payload=b"garbage", attributes=1))
    assert ([record.offset for record in found], end) == (list(range(UNREAD_RECORDS)), 5000)
    assert f"replaces the next {5000 - UNREAD_RECORDS}" in said(found[-1])


def test_a_batch_of_more_records_than_the_bound_is_not_opened() -> None:
    count = BATCH_RECORDS + 1
    found, end = fetched(batch_of([RawRecord(None)] * count, codec="gzip", payload=b""))
    assert (len(found), end) == (UNREAD_RECORDS, count)
    assert f"{count} records" in said(found[0])


@pytest.mark.parametrize(("headers", "codec"), [(3_000_000, "gzip"), (500_000, "none"), (MOST_HEADERS + 1, "none")])
def test_a_record_of_very_many_headers_is_not_read_and_its_neighbours_are(headers: int, codec: str) -> None:
    body = b"\x00\x00\x02\x02k\x02v" + varint(headers) + b"\x00\x01" * headers
    first, third = RawRecord(b"one", [(b"n", b"h")] * MOST_HEADERS), RawRecord(b"three")
    payload = encoded_record(first, 0) + varint(len(body)) + body + encoded_record(third, 2)
    raw = batch_of([first, first, third], payload=payload, codec=codec)
    tracemalloc.start()
    found, end = fetched(raw)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [record.value for record in found] == [b"one", b"v", b"three"]
    assert (found[1].key, end) == (b"k", 3)
    assert (f"{headers} headers" if len(body) <= KEPT_BYTES else f"{len(body)} bytes") in said(found[1])
    assert peak < 4 * BATCH_BYTES


def test_of_records_with_many_headers_no_more_are_handed_on_at_once_than_memory_holds() -> None:
    record = RawRecord(b"", [(b"", None)] * MOST_HEADERS)
    payload = b"".join(encoded_record(record, number) for number in range(100))
    whole = batch_of([record] * 100, payload=payload, codec="gzip")
    batches = [struct.pack(">q", 100 * number) + whole[8:] for number in range(30)]
    found, end = fetched(b"".join(batches))
    assert 100 < len(found) == end < 2000


def test_a_gzip_stream_of_very_many_members_is_not_read() -> None:
    packed = compressed(encoded_record(RawRecord(b"one"), 0), "gzip") + compressed(b"", "gzip") * 200
    found, _ = fetched(batch_of([RawRecord(b"one")], payload=packed, attributes=1))
    assert "members" in said(found[0])


def test_of_a_record_that_is_too_large_size_and_digest_are_kept_and_its_neighbours_are_read() -> None:
    records = [RawRecord(b"one"), RawRecord(b"x" * (KEPT_BYTES + 1), key=b"k"), RawRecord(b"three")]
    found, _ = fetched(batch_of(records, codec="zstd"))
    assert [record.value for record in found] == [b"one", None, b"three"]
    assert found[1].key == b"k"
    assert f"up to {KEPT_BYTES} are read; its value has {KEPT_BYTES + 1} bytes with SHA-256 " in said(found[1])


def test_well_compressed_batches_are_not_all_decompressed_at_once() -> None:
    size = BATCH_BYTES // 10
    batches = [batch_of([RawRecord(b"x" * size)], codec="gzip", base_offset=number) for number in range(30)]
    found, end = fetched(b"".join(batches))
    assert len(found) == end == 10
    again, end = fetched(b"".join(batches[10:]), first=10)
    assert [record.offset for record in again] == list(range(10, 20))
    assert end == 20


def test_markers_and_aborted_transactions_are_left_out() -> None:
    transactional, control = 0x10, 0x20

    def of(producer: int, raw: bytes) -> bytes:
        changed = bytearray(raw)
        struct.pack_into(">qhi", changed, 43, producer, 0, 0)
        struct.pack_into(">I", changed, 17, calc_crc32c(bytes(changed[21:])))
        return bytes(changed)

    def marker(producer: int, kind: int, offset: int) -> bytes:
        record = RawRecord(b"\x00" * 6, key=struct.pack(">hh", 0, kind))
        return of(producer, batch_of([record], base_offset=offset, attributes=transactional | control))

    raw = of(7, batch_of([RawRecord(b"aborted")], attributes=transactional))
    raw += of(8, batch_of([RawRecord(b"committed", [(b"\xff", None)])], base_offset=1, attributes=transactional))
    raw += marker(7, 0, 2) + marker(8, 1, 3)
    raw += of(7, batch_of([RawRecord(b"later")], base_offset=4, attributes=transactional))
    found, end = fetched(raw, aborted=[(7, 0)])
    assert [(record.offset, record.value) for record in found] == [(1, b"committed"), (4, b"later")]
    assert end == 5


def test_the_rest_of_a_batch_that_was_cut_off_is_left_for_the_next_fetch() -> None:
    whole = batch_of([RawRecord(b"one")]) + batch_of([RawRecord(b"two")], base_offset=1)
    for missing in range(1, 70):
        found, end = fetched(whole[:-missing])
        assert ([record.value for record in found], end) == ([b"one"], 1)
