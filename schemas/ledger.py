"""Defines the ledger of a training: which rows it learnt from, and how often. The step that trains writes it, the registry reads it."""

import base64
import struct
import zlib
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import ClassVar, Self

from pydantic import Field

from schemas.base import Frozen

_NUMBER_AT_MOST = 10**8
_BYTES = 4


class RowsUsed(Frozen):
    """How often each row was in a batch, by the row's id."""

    FILE: ClassVar[str] = "rows-used.json"

    counts: dict[str, str] = Field(
        description="By the first part of the ids, `train` of `train-7`: how often the rows 1, 2, 3 and so on were in a batch, as unsigned "
        "32-bit integers in little-endian order, deflated (zlib) and in base64."
    )
    others: dict[str, int] = Field(
        default_factory=dict, description="The same of ids that do not end with a number, by id."
    )

    @classmethod
    def of(cls, uses: Iterable[tuple[str, int]]) -> Self:
        """Return the ledger of rows by their ids; an id that occurs more than once is counted together."""
        numbered, others = dict[str, dict[int, int]](), Counter[str]()
        for row_id, times in uses:
            if place := _place(row_id):
                of_part = numbered.setdefault(place[0], {})
                of_part[place[1]] = of_part.get(place[1], 0) + times
            else:
                others[row_id] += times
        return cls(counts={part: _packed(found) for part, found in sorted(numbered.items())}, others=dict(others))

    def times(self, row_id: str) -> int:
        """Return how often a row was in a batch."""
        if (place := _place(row_id)) is None:
            return self.others.get(row_id, 0)
        content = self._unpacked.get(place[0], b"")
        end = place[1] * _BYTES
        return struct.unpack("<I", content[end - _BYTES : end])[0] if end <= len(content) else 0

    @cached_property
    def _unpacked(self) -> dict[str, bytes]:
        return {part: zlib.decompress(base64.b64decode(text)) for part, text in self.counts.items()}


def _place(row_id: str) -> tuple[str, int] | None:
    """Return the first part and the number of an id; None if it does not end with a number from 1."""
    part, dash, number = row_id.rpartition("-")
    if not dash or not number.isascii() or not number.isdigit() or number.startswith("0") or int(number) > _NUMBER_AT_MOST:
        return None
    return part, int(number)


def _packed(found: dict[int, int]) -> str:
    content = struct.pack(f"<{max(found)}I", *(found.get(number, 0) for number in range(1, max(found) + 1)))
    return base64.b64encode(zlib.compress(content, 9)).decode()
