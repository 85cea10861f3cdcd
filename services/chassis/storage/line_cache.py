"""Keeps what was expensive to learn on disk as it arrives, so that a later run of the same step recalls it.

There is one file per run, below the step's checkpoints; a later run reads those of all. A line that a kill left incomplete is
skipped.
"""

import contextlib
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import Field, ValidationError

from schemas.base import Frozen


class CachedLine(Frozen):
    """One line, with what it is found by."""

    key: str = Field(description="Digest of all that the content depends on.")


_Entry = TypeVar("_Entry", bound=CachedLine)


class LineCache(Generic[_Entry]):
    """Entries by key; the last one that was kept counts."""

    def __init__(self, entry: type[_Entry], root: Path, own: Path, name: str) -> None:
        """`root`: the checkpoints of all runs of the step; `own`: the folder that only this run writes to; `name`: of the file."""
        self._known: dict[str, _Entry] = {}
        for file in sorted(root.glob(f"*/*/{name}")):
            for line in file.read_bytes().splitlines():
                with contextlib.suppress(ValidationError):
                    found = entry.model_validate_json(line)
                    self._known[found.key] = found
        own.mkdir(parents=True, exist_ok=True)
        self._file = (own / name).open("a", encoding="utf-8")

    def recall(self, key: str) -> _Entry | None:
        """Return what this or an earlier run has kept under the key, if anything."""
        return self._known.get(key)

    def keep(self, entry: _Entry) -> None:
        """Store the entry and write it to the file at once."""
        self._known[entry.key] = entry
        self._file.write(entry.model_dump_json() + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file, which is kept for later runs."""
        self._file.close()
