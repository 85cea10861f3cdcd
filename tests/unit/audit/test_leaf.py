"""A leaf is the record and no other: whatever differs between two records differs between their leaves."""

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.audit.leaf import RawRecord, leaf_bytes

raw_bytes = st.none() | st.binary(max_size=6)
any_record = st.builds(
    RawRecord,
    topic=st.text(alphabet="ab.", max_size=4),
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    timestamp=st.integers(-1, 2**63 - 1),
    key=raw_bytes,
    value=raw_bytes,
    headers=st.lists(st.tuples(st.text(max_size=3), raw_bytes), max_size=3).map(tuple),
)


@given(any_record, any_record)
def test_two_records_have_one_leaf_only_if_they_are_the_same(one: RawRecord, other: RawRecord) -> None:
    assert (leaf_bytes(one) == leaf_bytes(other)) == (one == other)


@given(any_record)
def test_a_leaf_can_be_read_back_by_the_documented_encoding(record: RawRecord) -> None:
    assert read_back(leaf_bytes(record)) == record


def read_back(leaf: bytes) -> RawRecord:
    """A reader written after docs/audit.md, not after the code."""
    assert leaf[:8] == b"NWLEAF01"
    at = 8

    def take(form: str) -> Any:
        nonlocal at
        (value,) = struct.unpack_from(form, leaf, at)
        at += struct.calcsize(form)
        return value

    def string() -> bytes | None:
        nonlocal at
        length = take(">i")
        if length < 0:
            return None
        at += length
        return leaf[at - length : at]

    def text() -> str:
        raw = string()
        assert raw is not None
        return raw.decode()

    topic, partition, offset, timestamp, key = text(), take(">i"), take(">q"), take(">q"), string()
    headers = tuple((text(), string()) for _ in range(take(">i")))
    value = string()
    assert at == len(leaf)
    return RawRecord(topic, partition, offset, timestamp, key, value, headers)
