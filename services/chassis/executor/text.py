"""Cleans and shortens the output of programs, so that it can be stored in events and databases."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from schemas.reasons import Reason
from services.chassis.process.redaction import redacted

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-_]")
_UNSTORABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_TAIL_BYTES = 64 * 1024


def storable(text: str) -> str:
    """`text` without secrets, terminal escapes, control characters and lone surrogates, which PostgreSQL cannot store as JSON."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", _ESCAPES.sub("", redacted(text)))


def storable_reasons(reasons: Sequence[Reason]) -> tuple[Reason, ...]:
    """The reasons with texts that are storable."""
    return tuple(
        Reason(
            field=storable(reason.field),
            value=None if reason.value is None else storable(reason.value),
            message=storable(reason.message),
            remedy=storable(reason.remedy),
        )
        for reason in reasons
    )


def tail(path: Path, lines: int = 50, width: int = 500, *, since: int = 0) -> tuple[str, ...]:
    """Return the last lines of a log, oldest first; of a line that a progress bar rewrote only its last state.

    `since`: read only what was written after this many bytes.
    """
    try:
        with path.open("rb") as file:
            return tail_of(file, lines, width, since=since)
    except OSError:
        return ()


def tail_of(file: IO[bytes], lines: int = 50, width: int = 500, *, since: int = 0) -> tuple[str, ...]:
    """Return the last lines of an open log, as `tail` does."""
    file.seek(max(since, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
    raw = file.read()
    written = raw.decode(errors="replace").replace("\r\n", "\n").split("\n")
    shown = (storable(line.rstrip("\r").rpartition("\r")[2]).rstrip()[:width] for line in written)
    return tuple(line for line in shown if line)[-lines:]
