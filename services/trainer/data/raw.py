"""Defines what the readers of data sets share: a row as stored, its bounds and encoding, the requested splits, the form of a fault."""

import codecs
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from schemas.lines import SPLITS, Row, Split
from schemas.reasons import Reason, shown
from schemas.recipes.dataset import DatasetSettings
from services.trainer.data.columns import RowFault

ROW_BYTES = 64 * 2**20
"""A longer row is bad: no model learns from it, and a file without line breaks would fill the memory."""
CHUNK = 2**20
"""How much of a file is read at once."""
REFERENCE = "dataset.reference"
"""The setting that a fault of a file is about."""
_UTF_16 = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
           (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredExample:
    """What a stored row says."""

    row: Row
    """The chat with its answer; with the better answer of a pair."""
    rejected: str | None = None
    """The worse answer of a pair."""
    label: bool | None = None
    """Whether the answer is wanted; None without a label."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as it is stored, or why it cannot be read."""

    place: str
    """File and line for a message, for example `train.jsonl line 3`."""
    values: Mapping[str, object]
    fault: RowFault | None = None
    stored: StoredExample | None = None
    """What it says, if it is a row of a registered data set."""
    digest: str | None = None
    """The digest of such a row as it was given at first."""


@dataclass(frozen=True, slots=True)
class StoredRows:
    """The rows of a file or split, to be read once."""

    rows: Iterator[RawRow]
    expected: int
    """About how many there are, for progress; 0 if that is not known without reading them."""

    def __iter__(self) -> Iterator[RawRow]:
        return self.rows


def named(settings: DatasetSettings) -> Iterator[tuple[Split, str]]:
    """Yield the splits that the settings request, with their names."""
    for split in SPLITS:
        name: str | None = getattr(settings.split, split)
        if name is not None:
            yield split, name


def fault_of(field: str, value: str, message: str, remedy: str) -> Reason:
    """Make a fault of one of the data set's settings."""
    return Reason(field=f"dataset.{field}", value=shown(value), message=message, remedy=remedy)


def encoding_of(head: bytes) -> str:
    """Return the encoding that the byte order mark of a file names; UTF-8 without one."""
    return next((name for mark, name in _UTF_16 if head.startswith(mark)), "utf-8-sig")


def bad_row(place: str, message: str, remedy: str) -> RawRow:
    """Make a row that cannot be read."""
    return RawRow(place, {}, RowFault(REFERENCE, message, remedy))


def unreadable(place: str, message: str, remedy: str) -> Reason:
    """Make the fault of a file that cannot be read as a whole."""
    return Reason(field=REFERENCE, value=place, message=message, remedy=remedy)
