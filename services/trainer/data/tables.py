"""Reads tables, CSV and Parquet, row by row."""

import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from services.chassis.executor.child import UserFault
from services.trainer.data.padding import row_without_nulls
from services.trainer.data.raw import CHUNK, ROW_BYTES, RawRow, bad_row, encoding_of, unreadable

_PARQUET_BATCH = 1000
_SEPARATOR = re.compile(r"sep=(.)")


def csv_rows(path: Path) -> Iterator[RawRow]:
    """Yield the rows of a CSV file; raises UserFault where the file is none."""
    csv.field_size_limit(min(sys.maxsize, ROW_BYTES))
    with path.open("rb") as binary:
        head = binary.read(CHUNK)
    with path.open(encoding=encoding_of(head), newline="") as file:
        line = 0
        try:
            before, delimiter = _delimiter(path, file)
            reader = csv.reader(file, strict=True, delimiter=delimiter)
            header = [name.strip() for name in next((row for row in reader if row), [])]
            line = before + reader.line_num
            _refuse_doubled(path, header)
            for fields in reader:
                line = before + reader.line_num
                if not fields:
                    continue
                place = f"{path.name} line {line}"
                if len(fields) == len(header):
                    yield RawRow(place, dict(zip(header, fields, strict=True)))
                else:
                    what = f"the header has {len(header)} fields, this line does not"
                    yield bad_row(place, what, "quote fields that contain commas or line breaks")
        except (csv.Error, UnicodeError) as error:
            place = f"{path.name} after line {line}"
            what = "this is not CSV" if isinstance(error, csv.Error) else _no_utf_8(path, error)
            raise UserFault(unreadable(place, what, "write UTF-8 with quoted fields")) from error


def _delimiter(path: Path, file: TextIO) -> tuple[int, str]:
    """Return how many lines precede the header, of which Excel writes one (`sep=;`), and the delimiter; the file is read up to there.

    It is the sign that divides the header into the most fields: a comma, semicolon, tab or vertical bar; in a .tsv file a tab.
    """
    first = file.readline()
    if named := _SEPARATOR.fullmatch(first.strip("\r\n")):
        return 1, named[1]
    file.seek(0)
    if path.suffix.lower() == ".tsv":
        return 0, "\t"
    return 0, max(",;\t|", key=lambda sign: _fields(first, sign))


def _fields(header: str, sign: str) -> int:
    try:
        return len(next(csv.reader([header], strict=True, delimiter=sign), []))
    except csv.Error:
        return 0


def _refuse_doubled(path: Path, header: list[str]) -> None:
    doubled = [str(place) for place, name in enumerate(header, 1) if header.index(name) != place - 1]
    if doubled:
        what = f"a column's name occurs more than once in the header: column {', '.join(doubled)} repeats an earlier one"
        raise UserFault(unreadable(f"{path.name} line 1", what, "give every column its own name"))


def _no_utf_8(path: Path, error: UnicodeError) -> str:
    """Name the place at which a file is not UTF-8, and the encoding that it has by all appearances."""
    if not isinstance(error, UnicodeDecodeError) or not error.encoding.startswith("utf-8"):
        return f"this is not valid {getattr(error, 'encoding', 'Unicode').upper()}"
    return "a byte is not UTF-8, as in files that a spreadsheet saves in Windows-1252"


def parquet_rows(path: Path) -> Iterator[RawRow]:
    """Yield the rows of a Parquet file; raises UserFault where the file is none."""
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise UserFault(
                    unreadable(path.name, "a column's name occurs more than once", "give every column its own name")
                )
            for batch in file.iter_batches(_PARQUET_BATCH):
                for values in batch.to_pylist():
                    number += 1
                    yield RawRow(f"{path.name} row {number}", row_without_nulls(values))
    except (pyarrow.ArrowException, OSError, UnicodeError) as error:
        what = f"this is not a readable Parquet file ({type(error).__name__})"
        raise UserFault(unreadable(path.name, what, "correct dataset.format")) from error
