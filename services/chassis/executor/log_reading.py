"""Reads the log of an attempt in parts of bounded size, also while its process writes it."""

import os
from pathlib import Path
from typing import NamedTuple

from services.chassis.executor.text import storable

LONGEST_READ = 64 * 1024
"""The most bytes of a part; a longer line is split."""
_WIDTH = 2000
"""The most characters of a line that are shown."""


class LogLines(NamedTuple):
    """Whole lines of a log, oldest first, and where the following ones begin."""

    lines: tuple[str, ...]
    next: int


def read_lines(log: Path, after: int | None) -> LogLines | None:
    """Return the lines behind the first `after` bytes, or the last ones for None; None if there is no such log.

    A line that is still being written is left for the next read. Of a line that a progress bar rewrote only its last state
    is returned.
    """
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - LONGEST_READ) if after is None else min(after, size)
            file.seek(start)
            raw = file.read(LONGEST_READ)
    except (FileNotFoundError, NotADirectoryError):
        return None
    end = raw.rfind(b"\n") + 1
    if not end and len(raw) == LONGEST_READ:  # one line that is longer than a part
        end = len(raw)
    first = raw.find(b"\n") + 1 if after is None and start else 0  # the last lines begin with a whole one
    written = raw[first:end].decode(errors="replace").replace("\r\n", "\n").split("\n")
    if written[-1] == "":
        written.pop()
    shown = (storable(line.rstrip("\r").rpartition("\r")[2]).rstrip()[:_WIDTH] for line in written)
    return LogLines(tuple(shown), start + end)
