"""Defines what the readers of data sets share: a row as stored, the requested splits, and the form of a fault."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from schemas.lines import SPLITS, Split
from schemas.reasons import Reason, shown
from schemas.recipes.dataset import DatasetSettings
from services.trainer.data.columns import RowFault


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as it is stored, or why it cannot be read."""

    place: str
    """File and line for a message, for example `train.jsonl line 3`."""
    values: Mapping[str, object]
    fault: RowFault | None = None


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
