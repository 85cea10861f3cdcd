"""Names the folders of an executor on this machine; names from events become safe folder names."""

from pathlib import Path
from urllib.parse import quote

UNFINISHED = "tmp-"
"""Prefix of folders in which a checkpoint is being written; they are useless once the process has ended."""


EVENT_FILES = "tensorboard"
"""Name of the folder with TensorBoard event files, beside the logs of a step's attempts."""


def folder_name(name: str) -> str:
    """`name` as a folder name that cannot leave its parent; different names give different folders."""
    quoted = quote(name, safe="")
    return quoted.replace(".", "%2E", 1) if quoted.startswith(".") else quoted or "%"


def checkpoints_of(home: Path, job_id: str, step: str) -> Path:
    """Root of all checkpoints of one step; below it `<attempt>/<lease>/`, one folder per run, never shared."""
    return home.resolve() / "checkpoints" / folder_name(job_id) / folder_name(step)


def temporary_of(home: Path, service: str, lease: str) -> Path:
    """Return the folder for temporary files of one run (its TMPDIR); the name is short because paths of sockets must be
    short."""
    return home.resolve() / "tmp" / service / folder_name(lease)[:12]


def log_of(home: Path, service: str, job_id: str, step: str, attempt: int) -> Path:
    """Return the log of one attempt; a later run of it on the same machine appends to it."""
    return home.resolve() / "logs" / service / folder_name(job_id) / folder_name(step) / f"{attempt}.log"


def event_files_of(log: Path) -> Path:
    """Return the folder of a step's TensorBoard event files, beside the logs of its attempts."""
    return log.parent / EVENT_FILES


def remove_empty(folder: Path, levels: int) -> None:
    """Remove a folder if it is empty, then its parents while they are empty, at most `levels` folders in all."""
    for path in (folder, *folder.parents)[:levels]:
        try:
            path.rmdir()
        except OSError:  # it is not empty, is gone, or somebody writes there
            return


def account_of(home: Path, machine: str) -> Path:
    """Return the folder in which the executors of a machine keep what they use of it."""
    return home.resolve() / "slots" / folder_name(machine)


def cache_of(home: Path) -> Path:
    """Return the folder of files that can be downloaded again."""
    return home.resolve() / "cache"
