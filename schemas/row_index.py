"""Defines the index by which a row of a data set is found: a file that the step writes which stores the rows, and the registry searches.

It is a list of records of 22 bytes, sorted by their bytes: the first 16 bytes of the row's digest, its split, the first part of its id, and
the number in its id, big-endian. A search reads about twenty records of a million.
"""

import mmap
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from schemas.lines import SPLITS

FILE = "rows.index"
_RECORD = struct.Struct(">16sBBI")
_PREFIX = 16
_SORTED_AT_ONCE = 50_000
_SPLITS: tuple[str, ...] = SPLITS
_PARTS = ("row", *SPLITS)
"""What ids of rows begin with."""


class IndexedRow(NamedTuple):
    """A row of a data set."""

    split: str
    id: str


def write_row_index(rows: Iterable[tuple[str, IndexedRow]], path: Path) -> None:
    """Write the index of rows by their digests; in memory are 22 bytes for each row. Raises ValueError for an id that is not the first
    part and a number."""
    left, sorted_parts = iter(rows), list[bytes]()
    while part := sorted(_record(digest, row) for digest, row in islice(left, _SORTED_AT_ONCE)):
        sorted_parts.append(b"".join(part))
    with path.open("wb") as file:
        file.writelines(merge(*map(_records, sorted_parts)))


def rows_in(index: Path, digest: str) -> list[IndexedRow]:
    """Return the rows with this digest; a row that is repeated has one for each time."""
    if not index.stat().st_size:
        return []
    wanted = bytes.fromhex(digest)[:_PREFIX]
    with index.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:

        def prefix(place: int) -> bytes:
            return content[place * _RECORD.size : place * _RECORD.size + _PREFIX]

        number, found = len(content) // _RECORD.size, list[IndexedRow]()
        place = bisect_left(range(number), wanted, key=prefix)
        while place < number and prefix(place) == wanted:
            _, split, part, row = _RECORD.unpack_from(content, place * _RECORD.size)
            found.append(IndexedRow(SPLITS[split], f"{_PARTS[part]}-{row}"))
            place += 1
    return found


def _records(part: bytes) -> Iterator[bytes]:
    return (part[start : start + _RECORD.size] for start in range(0, len(part), _RECORD.size))


def _record(digest: str, row: IndexedRow) -> bytes:
    part, _, number = row.id.rpartition("-")
    if part not in _PARTS or not number.isdecimal():
        raise ValueError(
            f"{row.id!r} is no id of a row that is indexed: write one of {', '.join(_PARTS)}, a hyphen and a number"
        )
    return _RECORD.pack(
        bytes.fromhex(digest)[:_PREFIX], _SPLITS.index(row.split), _PARTS.index(part), int(number)
    )  # fmt: skip
