"""Defines the index by which a row of a data set is found: a file that the step writes which stores the rows, and the registry searches.

It is a list of records of 22 bytes, sorted by their bytes: the first 16 bytes of the row's digest, its split, the first part of its id, and
the number in its id, big-endian. A search reads about twenty records of a million.
"""

import mmap
import struct
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from schemas.lines import SPLITS

FILE = "rows.index"
_RECORD = struct.Struct(">16sBBI")
_PREFIX = 16
_SPLITS: tuple[str, ...] = SPLITS
_PARTS = ("row", *SPLITS)
"""What ids of rows begin with."""


class IndexedRow(NamedTuple):
    """A row of a data set."""

    split: str
    id: str


def row_index(rows: Iterable[tuple[str, IndexedRow]]) -> bytes:
    """Return the index of rows by their digests. Raises ValueError for an id that is not the first part and a number."""
    return b"".join(sorted(_record(digest, row) for digest, row in rows))


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


def _record(digest: str, row: IndexedRow) -> bytes:
    part, _, number = row.id.rpartition("-")
    if part not in _PARTS or not number.isdecimal():
        raise ValueError(
            f"{row.id!r} is no id of a row that is indexed: write one of {', '.join(_PARTS)}, a hyphen and a number"
        )
    return _RECORD.pack(
        bytes.fromhex(digest)[:_PREFIX], _SPLITS.index(row.split), _PARTS.index(part), int(number)
    )  # fmt: skip
