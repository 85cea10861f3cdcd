"""Finds repeated rows, contradicting answers and held-out prompts that are learnt, from 32 bytes for each row.

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
    """Rows of the training split of which another one says something else: gives another answer to the prompt, prefers the
    other answer of the pair, or labels the same answer otherwise."""
    test_seen: int
    """Rows of the test split whose prompt is in the training split."""


class SeenRows:
    """The hashes of all rows: of the prompt, of what they speak of and say, and of the whole row."""

    def __init__(self, *, leave_out: bool) -> None:
        """`leave_out`: whether repeated rows are left out, and so are not noted."""
        self._rows: dict[Split, array[int]] = {}
        self._known: dict[Split, set[int]] | None = {} if leave_out else None
        self._left_out = 0

    def note(self, split: Split, row: Row, subject: str, statement: str) -> bool:
        """Add a row, and return whether it is to be left out. Rows that say different things of one subject contradict."""
        about, says = _hash(subject), _hash(statement)
        whole = _hash(f"{about} {says} {json.dumps([row.columns, row.weight])}")
        if self._known is not None:
            known = self._known.setdefault(split, set())
            if whole in known:
                self._left_out += 1
                return True
            known.add(whole)
        self._rows.setdefault(split, array("Q")).extend((_hash(prompt_key(row)), about, says, whole))
        return False

    def found(self) -> Sameness:
        """Count what is said more than once."""
        train, test = self._columns("train"), self._columns("test")
        wholes = [self._columns(split)[3] for split in self._rows]
        repeated = self._left_out + sum(len(whole) - len(numpy.unique(whole)) for whole in wholes)
        seen = int(numpy.isin(test[0], train[0]).sum())
        return Sameness(repeated, _contradicting(train[1], train[2]), seen)

    def _columns(self, split: Split) -> _Hashes:
        return numpy.frombuffer(self._rows.get(split, array("Q")), dtype=numpy.uint64).reshape(-1, 4).T


def _contradicting(subjects: _Hashes, statements: _Hashes) -> int:
    """Count the rows whose subject has several different statements."""
    if not len(subjects):
        return 0
    order = numpy.lexsort((statements, subjects))
    subjects, statements = subjects[order], statements[order]
    begins = numpy.flatnonzero(numpy.concatenate(([True], subjects[1:] != subjects[:-1])))
    changes = numpy.concatenate(([False], (statements[1:] != statements[:-1]) & (subjects[1:] == subjects[:-1])))
    sizes = numpy.diff(numpy.append(begins, len(subjects)))
    return int(sizes[numpy.add.reduceat(changes, begins) > 0].sum())
