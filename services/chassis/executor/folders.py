"""Where an executor keeps files of its own on this machine; names from events become safe names of folders."""

from pathlib import Path
from urllib.parse import quote

UNFINISHED = "tmp-"
"""How names of folders begin in which a checkpoint is being written: worth nothing once its process is gone."""


def folder_name(name: str) -> str:
    """`name` as one folder, never a way out of its parent; different names give different folders."""
    quoted = quote(name, safe="")
    return quoted.replace(".", "%2E", 1) if quoted.startswith(".") else quoted or "%"


def checkpoints_of(home: Path, job_id: str, step: str) -> Path:
    """Root of all checkpoints of one step; below it `<attempt>/<lease>/`, one folder per run, never shared."""
    return home.resolve() / "checkpoints" / folder_name(job_id) / folder_name(step)


def temporary_of(home: Path, service: str, lease: str) -> Path:
    """What one run writes for the time being (its TMPDIR); the name is short because sockets have short names."""
    return home.resolve() / "tmp" / service / folder_name(lease)[:12]


def log_of(home: Path, service: str, job_id: str, step: str, attempt: int) -> Path:
    """Log of one attempt; a take-over on the same machine appends to it."""
    return home.resolve() / "logs" / service / folder_name(job_id) / folder_name(step) / f"{attempt}.log"


def remove_empty(folder: Path, levels: int) -> None:
    """Remove a folder that is empty, and up to `levels` in all of those above it that are empty then."""
    for path in (folder, *folder.parents)[:levels]:
        try:
            path.rmdir()
        except OSError:  # it is not empty, is gone, or somebody writes there
            return


def cache_of(home: Path) -> Path:
    """What can be fetched again."""
    return home.resolve() / "cache"
