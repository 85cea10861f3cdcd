"""Reads the digests of rows that a command is about: from a file with the rows, or as they are given."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from schemas.artifacts import SHA256_PATTERN
from schemas.datasets import ROWS_AT_ONCE
from schemas.row_digest import row_digest
from services.cli.exits import Exit, stop_with

RowFile = Annotated[
    Path | None, typer.Option("--row", help=f"A file with the row, or with {ROWS_AT_ONCE} rows at most, as it was given.")
]


def digests_of(row: Path | None, digest: str | None) -> list[str]:
    """Return the digests of the rows in a file, or the one that is given. Ends the command if there is none, or more than can be."""
    if (row is None) == (digest is None):
        stop_with(Exit.USAGE, "name either --row FILE or --digest DIGEST")
    if digest is not None:
        if not re.fullmatch(SHA256_PATTERN, digest.lower()):
            stop_with(Exit.USAGE, f"{digest} is no digest of a row: it has 64 hexadecimal digits")
        return [digest.lower()]
    assert row is not None
    found = list(islice(_rows(row), ROWS_AT_ONCE + 1))
    if not 0 < len(found) <= ROWS_AT_ONCE:
        what = f"more than {ROWS_AT_ONCE} rows" if found else "no row"
        stop_with(Exit.USAGE, f"{row} has {what}; name a file with the rows to look for")
    return list(dict.fromkeys(found))


def _rows(path: Path) -> Iterator[str]:
    """Yield the digest of each row of a file, which is read as a data set is."""
    try:
        from services.chassis.executor.child import UserFault
        from services.trainer.data.files import read_file
    except ImportError as error:
        stop_with(Exit.FAILED, f"{error}: to read rows on this machine, pip install 'neuroweaver[trainer]'")
    if not path.is_file():
        stop_with(Exit.USAGE, f"{path} is no file; name one with the row")
    try:
        for raw in read_file(path, "jsonl"):
            if raw.fault is not None:
                stop_with(Exit.USAGE, f"{raw.place}: {raw.fault}")
            yield row_digest(raw.values)
    except UserFault as fault:
        stop_with(Exit.USAGE, "\n".join(map(str, fault.reasons)))
