"""Reads a file with one JSON array of rows, of which one row is in memory at a time."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from services.chassis.executor.child import UserFault
from services.trainer.data.columns import RowFault, kind_of
from services.trainer.data.raw import CHUNK, REFERENCE, ROW_BYTES, RawRow, bad_row, encoding_of, unreadable
from services.trainer.data.row_json import DECODER, Twice, no_json


def array_rows(path: Path) -> Iterator[RawRow]:
    """Yield the elements of a file's array; raises UserFault where the file is no array of objects."""
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
            raise UserFault(unreadable(place, what, "correct it; for one object per line use format jsonl")) from error


def _elements(path: Path, file: TextIO) -> Iterator[object]:
    """Yield the elements of an array, of which one is in memory. Raises ValueError, and UserFault if this is no array."""
    text, at = file.read(CHUNK).lstrip(), 1
    if not text.startswith("["):
        raise UserFault(unreadable(path.name, *_no_array(text + file.read())))
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
    if (text[at + 1 :] + file.read(CHUNK)).strip():
        raise UserFault(unreadable(path.name, "something follows the array", "write one array, or one object per line"))


class _Endless(ValueError):
    """The file ends within the array."""


def _row_of_array(place: str, values: object) -> RawRow:
    if isinstance(values, RowFault):
        return RawRow(place, {}, values)
    if isinstance(values, dict):
        return RawRow(place, values)
    return bad_row(place, f"an object is expected, this is {kind_of(values)}", "correct the element")


def _past_blanks(file: TextIO, text: str, at: int) -> tuple[str, int]:
    """Return the text and the position of the next character that is no white space; reads on where necessary."""
    while True:
        while at < len(text) and text[at] in " \t\r\n":
            at += 1
        if at < len(text):
            return text, at
        text, at = file.read(CHUNK), 0
        if not text:
            raise _Endless("the file ends within the array")


def _element(file: TextIO, text: str, at: int) -> tuple[object, str, int]:
    """Parse the element at a position; reads on until it is complete."""
    text, at = text[at:], 0
    wanted = CHUNK
    while True:
        try:
            values, end = DECODER.raw_decode(text)
            if end < len(text) or not (more := file.read(CHUNK)):
                return values, text, end
            text += more
        except Twice:
            end = json.JSONDecoder().raw_decode(text)[1]
            what = "a name occurs more than once in an object of the row"
            return RowFault(REFERENCE, what, "keep one of its values"), text, end
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
