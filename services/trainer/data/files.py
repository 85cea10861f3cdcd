"""Reads files of rows one by one in bounded memory; a row that cannot be read is passed on with its cause.

The loaders of `datasets` are used for the hub's layout. They are not used for single files: they turn texts that look like
dates into times and an empty cell into a missing value, and cannot tell the line of a fault.
"""

import codecs
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from schemas.reasons import Reason
from services.chassis.executor.child import UserFault
from services.trainer.data.columns import RowFault, kind_of
from services.trainer.data.raw import RawRow, StoredRows
from services.trainer.data.signatures import refuse_other_files

ROW_BYTES = 64 * 2**20
"""A longer row is bad: no model learns from it, and a file without line breaks would fill the memory."""
_CHUNK = 2**20
_PARQUET_BATCH = 1000
_UTF_16 = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
           (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
_REFERENCE = "dataset.reference"


def kind_of_file(path: Path, form: str) -> str:
    """Return how a file is read: by the format of the settings; `jsonl` also covers what name or first byte make plain."""
    if form != "jsonl":
        return form
    by_name = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}.get(path.suffix.lower())
    if by_name is not None:
        return by_name
    with path.open("rb") as file:
        head = file.read(_CHUNK)
    return "json" if head.decode(encoding_of(head), "replace").lstrip("\ufeff \t\r\n").startswith("[") else "jsonl"


def encoding_of(head: bytes) -> str:
    """Return the encoding that the byte order mark of a file names; UTF-8 without one."""
    return next((name for mark, name in _UTF_16 if head.startswith(mark)), "utf-8-sig")


def read_file(path: Path, form: str) -> StoredRows:
    """Return the rows of a file; reading them raises UserFault if it is not of its format at all."""
    kind = kind_of_file(path, form)
    if kind != "parquet":
        refuse_other_files(path)
    match kind:
        case "json":
            return StoredRows(_array(path), 0)
        case "csv":
            return StoredRows(_csv(path), _line_breaks(path))
        case "parquet":
            return StoredRows(_parquet(path), 0)
    return StoredRows(_lines(path), _line_breaks(path))


def _line_breaks(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_CHUNK), b""))


def _lines(path: Path) -> Iterator[RawRow]:
    with path.open("rb") as file:
        encoding = encoding_of(file.read(4))
        file.seek(0)
        lines = _utf_8_lines(file) if encoding == "utf-8-sig" else _recoded_lines(path, encoding)
        for number, line in enumerate(lines, 1):
            place = f"{path.name} line {number}"
            if line is None:
                yield _bad(place, f"the line is longer than {ROW_BYTES // 2**20} MiB", "break it into rows")
            elif line.strip(b"\xef\xbb\xbf \t\r\n" if number == 1 else None):
                yield _line(place, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line)


def _utf_8_lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Yield the lines of a file; None for one that is too long."""
    while line := file.readline(ROW_BYTES):
        if len(line) == ROW_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(_CHUNK)) and not rest.endswith(b"\n"):
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
            raise UserFault(_unreadable(path.name, f"it is no valid {encoding.upper()}", "write UTF-8")) from error


def _line(place: str, line: bytes) -> RawRow:
    try:
        values = row_json(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return _bad(place, no_json(error), "correct or remove the line")
    except _Twice:
        return _bad(place, "a name occurs more than once in an object of the row", "keep one of its values")
    if isinstance(values, dict):
        return RawRow(place, values)
    what = f"one JSON object per line is expected, this is {kind_of(values)}"
    return _bad(place, what, "write one object per line")


class _Twice(Exception):
    """A name occurs twice in one object."""


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _Twice
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_once)


def row_json(text: str) -> object:
    """Parse the JSON of a row. Raises ValueError, RecursionError, and _Twice for a name that occurs twice in an object."""
    return _DECODER.decode(text)


def _array(path: Path) -> Iterator[RawRow]:
    with path.open("rb") as head:
        encoding = encoding_of(head.read(4))
    number = 0
    with path.open(encoding=encoding) as file:
        try:
            for number, values in enumerate(_elements(path, file), 1):
                yield _row_of_array(f"{path.name} element {number}", values)
        except (ValueError, RecursionError) as error:
            place = f"{path.name} element {number + 1}"
            what = str(error) if isinstance(error, _Endless) else no_json(error)
            raise UserFault(_unreadable(place, what, "correct it; for one object per line use format jsonl")) from error


def _elements(path: Path, file: TextIO) -> Iterator[object]:
    """Yield the elements of an array, of which one is in memory. Raises ValueError, and UserFault if this is no array."""
    text, at = file.read(_CHUNK).lstrip(), 1
    if not text.startswith("["):
        raise UserFault(_unreadable(path.name, *_no_array(text + file.read())))
    text, at = _past_blanks(file, text, at)
    while text[at] != "]":
        values, text, at = _element(file, text, at)
        yield values
        text, at = _past_blanks(file, text, at)
        if text[at] == ",":
            text, at = _past_blanks(file, text, at + 1)
            if text[at] == "]":
                raise json.JSONDecodeError("Expecting value", text, at)
        elif text[at] != "]":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    if (text[at + 1 :] + file.read(_CHUNK)).strip():
        raise UserFault(_unreadable(path.name, "something follows the array", "write one array, or one object per line"))


class _Endless(ValueError):
    """The file ends within the array."""


def _row_of_array(place: str, values: object) -> RawRow:
    if isinstance(values, RowFault):
        return RawRow(place, {}, values)
    if isinstance(values, dict):
        return RawRow(place, values)
    return _bad(place, f"an object is expected, this is {kind_of(values)}", "correct the element")


def _past_blanks(file: TextIO, text: str, at: int) -> tuple[str, int]:
    """Return the text and the position of the next character that is no white space; reads on where necessary."""
    while True:
        while at < len(text) and text[at] in " \t\r\n":
            at += 1
        if at < len(text):
            return text, at
        text, at = file.read(_CHUNK), 0
        if not text:
            raise _Endless("the file ends within the array")


def _element(file: TextIO, text: str, at: int) -> tuple[object, str, int]:
    """Parse the element at a position; reads on until it is complete."""
    text, at = text[at:], 0
    wanted = _CHUNK
    while True:
        try:
            values, end = _DECODER.raw_decode(text)
            if end < len(text) or not (more := file.read(_CHUNK)):
                return values, text, end
            text += more
        except _Twice:
            end = json.JSONDecoder().raw_decode(text)[1]
            what = "a name occurs more than once in an object of the row"
            return RowFault(_REFERENCE, what, "keep one of its values"), text, end
        except json.JSONDecodeError:
            if len(text) > ROW_BYTES or not (more := file.read(wanted)):
                raise
            text, wanted = text + more, wanted * 2


def _no_array(text: str) -> tuple[str, str]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        return no_json(error), "correct it; for one object per line use format jsonl"
    return f"an array of objects is expected, this is {kind_of(values)}", "write an array"


def _csv(path: Path) -> Iterator[RawRow]:
    csv.field_size_limit(min(sys.maxsize, ROW_BYTES))
    with path.open("rb") as binary:
        head = binary.read(_CHUNK)
    with path.open(encoding=encoding_of(head), newline="") as file:
        line = 0
        try:
            delimiter = _delimiter(file.readline())
            file.seek(0)
            reader = csv.reader(file, strict=True, delimiter=delimiter)
            header: list[str] = next((row for row in reader if row), [])
            line = reader.line_num
            _refuse_doubled(path, header)
            for fields in reader:
                line = reader.line_num
                if not fields:
                    continue
                place = f"{path.name} line {line}"
                if len(fields) == len(header):
                    yield RawRow(place, dict(zip(header, fields, strict=True)))
                else:
                    what = f"the header has {len(header)} fields, this line does not"
                    yield _bad(place, what, "quote fields that contain commas or line breaks")
        except (csv.Error, UnicodeError) as error:
            place = f"{path.name} after line {line}"
            what = "this is not CSV" if isinstance(error, csv.Error) else _no_utf_8(path, error)
            raise UserFault(_unreadable(place, what, "write UTF-8 with quoted fields")) from error


def _delimiter(header: str) -> str:
    """Return the delimiter of a file by its header: where there is no comma, a semicolon, a tab or a vertical bar."""
    return next((sign for sign in ",;\t|" if sign in header), ",")


def _refuse_doubled(path: Path, header: list[str]) -> None:
    doubled = [str(place) for place, name in enumerate(header, 1) if header.index(name) != place - 1]
    if doubled:
        what = f"a column's name occurs more than once in the header: column {', '.join(doubled)} repeats an earlier one"
        raise UserFault(_unreadable(f"{path.name} line 1", what, "give every column its own name"))


def _parquet(path: Path) -> Iterator[RawRow]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise UserFault(
                    _unreadable(path.name, "a column's name occurs more than once", "give every column its own name")
                )
            for batch in file.iter_batches(_PARQUET_BATCH):
                for values in batch.to_pylist():
                    number += 1
                    yield RawRow(f"{path.name} row {number}", values)
    except (pyarrow.ArrowException, OSError, UnicodeError) as error:
        what = f"this is not a readable Parquet file ({type(error).__name__})"
        raise UserFault(_unreadable(path.name, what, "correct dataset.format")) from error


def no_json(error: Exception) -> str:
    """The position at which JSON parsing fails, without the content there."""
    match error:
        case UnicodeDecodeError():
            return f"this is not JSON: byte {error.start} is not UTF-8"
        case json.JSONDecodeError():
            return f"this is not JSON: {error.msg[:1].lower()}{error.msg[1:]}, column {error.colno}"
    return f"this is not readable JSON ({type(error).__name__})"


def _no_utf_8(path: Path, error: UnicodeError) -> str:
    """Name the place at which a file is not UTF-8, and the encoding that it has by all appearances."""
    if not isinstance(error, UnicodeDecodeError) or not error.encoding.startswith("utf-8"):
        return f"this is not valid {getattr(error, 'encoding', 'Unicode').upper()}"
    return "a byte is not UTF-8, as in files that a spreadsheet saves in Windows-1252"


def _bad(place: str, message: str, remedy: str) -> RawRow:
    return RawRow(place, {}, RowFault(_REFERENCE, message, remedy))


def _unreadable(place: str, message: str, remedy: str) -> Reason:
    return Reason(field=_REFERENCE, value=place, message=message, remedy=remedy)
