"""Recognises by their first bytes files that are no text, and text whose encoding or delimiter is not read, and says so."""

from collections.abc import Mapping
from pathlib import Path

from schemas.reasons import Reason
from services.chassis.executor.child import UserFault

_HEAD = 4096
_PACKED: Mapping[bytes, str] = {
    b"\x1f\x8b": "compressed with gzip",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
}
_OTHER: Mapping[bytes, tuple[str, str]] = {
    b"PK\x03\x04": ("a ZIP archive or a spreadsheet (XLSX)", "unpack it, or save the sheet as CSV in UTF-8"),
    b"\xd0\xcf\x11\xe0": ("a spreadsheet of Excel 97 (XLS)", "save the sheet as CSV in UTF-8"),
    b"PAR1": ("a Parquet file", "set dataset.format to parquet"),
    b"ARROW1": ("an Arrow file", "save it as Parquet and set dataset.format to parquet"),
    b"SQLite format 3": ("an SQLite database", "export the table as JSON lines or CSV"),
    b"%PDF": ("a PDF", "write the rows as JSON lines"),
    b"version https://git-lfs": ("a pointer of git-lfs", "fetch the file itself, with git lfs pull"),
    b"<!DOCTYPE": ("a web page", "name the address of the file itself"),
    b"<html": ("a web page", "name the address of the file itself"),
}


def refuse_other_files(path: Path) -> None:
    """Raise UserFault if a file that is read as text is something else, naming what it is."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    for mark, what in _PACKED.items():
        if head.startswith(mark):
            raise _fault(path, what, "unpack it")
    for mark, (what, remedy) in _OTHER.items():
        if head.startswith(mark):
            raise _fault(path, what, remedy)
    if _is_utf_16(head):
        raise _fault(path, "UTF-16 text without a byte order mark", "save it as UTF-8")


def _is_utf_16(head: bytes) -> bool:
    """Whether every second byte of most characters is zero, which text in UTF-8 never has."""
    sides = head[0::2].count(0), head[1::2].count(0)
    return len(head) >= 4 and not head.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00")) and max(sides) * 4 > len(head)


def _fault(path: Path, what: str, remedy: str) -> UserFault:
    return UserFault(Reason(field="dataset.reference", value=path.name, message=f"the file is {what}", remedy=remedy))
