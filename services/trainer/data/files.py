"""Reads files of rows one by one in bounded memory; a row that cannot be read is passed on with its cause.

The loaders of `datasets` are used for the hub's layout. They are not used for single files: they turn texts that look like
dates into times and an empty cell into a missing value, and cannot tell the line of a fault.
"""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from services.chassis.executor.child import UserFault
from services.trainer.data.columns import kind_of
from services.trainer.data.json_array import array_rows
from services.trainer.data.raw import CHUNK, ROW_BYTES, RawRow, StoredRows, bad_row, encoding_of, unreadable
from services.trainer.data.row_json import Twice, no_json, row_json
from services.trainer.data.signatures import refuse_other_files
from services.trainer.data.tables import csv_rows, parquet_rows


def kind_of_file(path: Path, form: str) -> str:
    """Return how a file is read: by the format of the settings; `jsonl` also covers what name or first byte make plain."""
    if form != "jsonl":
        return form
    by_name = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}.get(path.suffix.lower())
    if by_name is not None:
        return by_name
    with path.open("rb") as file:
        head = file.read(CHUNK)
    return "json" if head.decode(encoding_of(head), "replace").lstrip("\ufeff \t\r\n").startswith("[") else "jsonl"


def read_file(path: Path, form: str) -> StoredRows:
    """Return the rows of a file; reading them raises UserFault if it is not of its format at all."""
    kind = kind_of_file(path, form)
    if kind != "parquet":
        refuse_other_files(path)
    match kind:
        case "json":
            return StoredRows(array_rows(path), 0)
        case "csv":
            return StoredRows(csv_rows(path), _line_breaks(path))
        case "parquet":
            return StoredRows(parquet_rows(path), 0)
    return StoredRows(_lines(path), _line_breaks(path))


def _line_breaks(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(CHUNK), b""))


def _lines(path: Path) -> Iterator[RawRow]:
    with path.open("rb") as file:
        encoding = encoding_of(file.read(4))
        file.seek(0)
        lines = _utf_8_lines(file) if encoding == "utf-8-sig" else _recoded_lines(path, encoding)
        for number, line in enumerate(lines, 1):
            place = f"{path.name} line {number}"
            if line is None:
                yield bad_row(place, f"the line is longer than {ROW_BYTES // 2**20} MiB", "break it into rows")
            elif (text := line.lstrip(codecs.BOM_UTF8)).strip():  # each of several files that were joined begins with one
                yield _line(place, text)


def _utf_8_lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Yield the lines of a file; None for one that is too long."""
    while line := file.readline(ROW_BYTES):
        if len(line) == ROW_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(CHUNK)) and not rest.endswith(b"\n"):
                pass
            yield None
        else:
            yield line


def _recoded_lines(path: Path, encoding: str) -> Iterator[bytes]:
    with path.open(encoding=encoding, newline="\n") as file:
        try:
            for line in file:
                yield line.encode("utf-8", "surrogatepass")
        except UnicodeError as error:
            raise UserFault(unreadable(path.name, f"it is no valid {encoding.upper()}", "write UTF-8")) from error


def _line(place: str, line: bytes) -> RawRow:
    try:
        values = row_json(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return bad_row(place, no_json(error), "correct or remove the line")
    except Twice:
        return bad_row(place, "a name occurs more than once in an object of the row", "keep one of its values")
    if isinstance(values, dict):
        return RawRow(place, values)
    what = f"one JSON object per line is expected, this is {kind_of(values)}"
    return bad_row(place, what, "write one object per line")
