"""Finds repeated rows, contradicting answers and held-out prompts that are learnt, from 24 bytes for each row.

Rows are compared by hashes of 64 bits: among 10^6 rows, the chance that any two different ones have the same hash is below
3 * 10^-8.
"""

import hashlib
import json
from array import array
from dataclasses import dataclass

import numpy
import numpy.typing

from schemas.lines import Row, Split
from services.trainer.data.splitting import prompt_key

_Hashes = numpy.typing.NDArray[numpy.uint64]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


@dataclass(frozen=True)
class Sameness:
    """What a data set says more than once."""

    repeated: int
    """Rows that repeat an earlier row of their split, with all its columns."""
    contradicting: int
    """Rows of the training split whose prompt has another answer in another row of it."""
    test_seen: int
    """Rows of the test split whose prompt is in the training split."""


class SeenRows:
    """The hashes of all rows: of prompt, answer and the whole row."""

    def __init__(self, *, leave_out: bool) -> None:
        """`leave_out`: whether repeated rows are left out, and so are not noted."""
        self._rows: dict[Split, array[int]] = {}
        self._known: dict[Split, set[int]] | None = {} if leave_out else None
        self._left_out = 0

    def note(self, split: Split, row: Row, rest: str = "") -> bool:
        """Add a row, and return whether it is to be left out. `rest` is what distinguishes it besides the row."""
        prompt, answer = _hash(prompt_key(row)), _hash(json.dumps([row.completion, row.tool_calls, rest]))
        whole = _hash(f"{prompt} {answer} {json.dumps([row.columns, row.weight])}")
        if self._known is not None:
            known = self._known.setdefault(split, set())
            if whole in known:
                self._left_out += 1
                return True
            known.add(whole)
        self._rows.setdefault(split, array("Q")).extend((prompt, answer, whole))
        return False

    def found(self) -> Sameness:
        """Count what is said more than once."""
        train, test = self._columns("train"), self._columns("test")
        wholes = [self._columns(split)[2] for split in self._rows]
        repeated = self._left_out + sum(len(whole) - len(numpy.unique(whole)) for whole in wholes)
        seen = int(numpy.isin(test[0], train[0]).sum())
        return Sameness(repeated, _contradicting(train[0], train[1]), seen)

    def _columns(self, split: Split) -> _Hashes:
        return numpy.frombuffer(self._rows.get(split, array("Q")), dtype=numpy.uint64).reshape(-1, 3).T


def _contradicting(prompts: _Hashes, answers: _Hashes) -> int:
    """Count the rows whose prompt has several different answers."""
    if not len(prompts):
        return 0
    different = numpy.unique(numpy.stack([prompts, answers]), axis=1)
    names, answers_of = numpy.unique(different[0], return_counts=True)
    return int(numpy.isin(prompts, names[answers_of > 1]).sum())
