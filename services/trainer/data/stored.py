"""Reads the rows of a registered data set again, exactly as they were stored, with the digests of the rows as they were given.

All files of a split have their lines in one order, so that they are read side by side, one row in memory at a time.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Generic, TypeVar

from schemas.lines import (
    SPLITS,
    Judged,
    Preference,
    Row,
    Split,
    held_out_pairs_file,
    row_digests,
    row_digests_file,
    split_file,
)
from schemas.recipes.dataset import ColumnMapping, DatasetSettings
from schemas.results import DATASET_LAYOUT
from services.chassis.executor.child import UserFault
from services.trainer.data.layouts import Learns, RowReading
from services.trainer.data.raw import RawRow, StoredExample, StoredRows, fault_of

_Line = TypeVar("_Line", Row, Preference, Judged)
_Value = TypeVar("_Value")


def read_stored(
    settings: DatasetSettings, learns: Learns, folder: Path, preferences: Path | None
) -> tuple[dict[Split, StoredRows], RowReading, str]:
    """Return the rows of each split, to be read once, and how and from where they were read when they were stored.

    Raises UserFault if later steps learn from pairs or labels and the data set has none.
    """
    described = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    pairs = preferences if learns in ("pairs", "labels") else None
    if learns in ("pairs", "labels") and not _has(preferences, learns):
        what = f"the data set was stored without the {learns} that this job learns from"
        raise UserFault(fault_of("reference", settings.reference, what, "name the original data, or another data set"))
    splits: Sequence[Split] = [split for split in SPLITS if (folder / row_digests_file(split)).is_file()]
    wanted = [split for split in splits if split != "test" or settings.split.test is not None]
    reading = RowReading("messages", ColumnMapping(), str(described[DATASET_LAYOUT]), needs_answers=learns != "prompts")
    return {split: StoredRows(_rows(folder, pairs, split), 0) for split in wanted}, reading, str(described["reference"])


def _has(preferences: Path | None, learns: Learns) -> bool:
    files = (Preference.FILE,) if learns == "pairs" else (Preference.FILE, Judged.FILE)
    return preferences is not None and any((preferences / name).is_file() for name in files)


def _rows(folder: Path, preferences: Path | None, split: Split) -> Iterator[RawRow]:
    with ExitStack() as files:
        read = row_digests(folder / row_digests_file(split))
        files.callback(read.close)
        digests = _Following((row_id, digest) for digest, row_id in read)
        for number, example in enumerate(_examples(folder, preferences, split, files), 1):
            (digest,) = digests.of(example.row.id)
            yield RawRow(f"{split} row {number}", {}, stored=example, digest=digest)


def _examples(folder: Path, preferences: Path | None, split: Split, files: ExitStack) -> Iterator[StoredExample]:
    rows = _lines(folder / split_file(split), Row, files)
    if preferences is None:
        yield from map(StoredExample, rows)
    elif split == "train" and (preferences / Judged.FILE).is_file():
        yield from _labelled(_Following((row.id, row) for row in rows), _lines(preferences / Judged.FILE, Judged, files))
    else:
        pairs = _lines(preferences / _pairs_file(split), Preference, files)
        rejected = _Following((pair.id, pair.rejected) for pair in pairs)
        yield from (StoredExample(row, next(iter(rejected.of(row.id)), None)) for row in rows)


def _pairs_file(split: Split) -> str:
    return Preference.FILE if split == "train" else held_out_pairs_file(split)


def _labelled(rows: "_Following[Row]", lines: Iterator[Judged]) -> Iterator[StoredExample]:
    """Yield the row of each answer with its label; both answers of a pair are one row."""
    held = next(lines, None)
    while held is not None:
        line, held = held, next(lines, None)
        if held is not None and held.id == line.id:
            yield StoredExample(rows.of(line.id)[0], rejected=held.completion)
            held = next(lines, None)
        elif line.label:
            yield StoredExample(rows.of(line.id)[0], label=True)
        else:
            row = Row(id=line.id, messages=line.messages, completion=line.completion, tools=line.tools, columns={})
            yield StoredExample(row, label=False)


class _Following(Generic[_Value]):
    """Values by row from lines in the order of the rows, of which some may be left out."""

    def __init__(self, lines: Iterator[tuple[str, _Value]]) -> None:
        self._lines = lines
        self._next = next(lines, None)

    def of(self, row_id: str) -> list[_Value]:
        """Return the values of a row; none where the lines have ended."""
        found: list[_Value] = []
        while self._next is not None and (self._next[0] == row_id or not found):
            if self._next[0] == row_id:
                found.append(self._next[1])
            self._next = next(self._lines, None)
        return found


def _lines(path: Path, model: type[_Line], files: ExitStack) -> Iterator[_Line]:
    if path.is_file():
        yield from map(model.model_validate_json, files.enter_context(path.open(encoding="utf-8")))
