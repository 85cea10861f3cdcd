"""Reads the rows of a data set that an earlier step prepared."""

from pathlib import Path

from schemas.lines import Row, Split, split_file
from services.chassis.storage.json_lines import read_lines


def rows_of(folder: Path, split: Split) -> list[Row]:
    """Return the rows of a split of a `dataset` artifact; none if it has no such split."""
    file = folder / split_file(split)
    return read_lines(file, Row) if file.exists() else []
