"""Writes files durably and puts folders in place atomically, on every file system that is supported."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF)
"""Errors of file systems that cannot sync something: folders over SMB, everything on some FUSE mounts."""


def sync(path: Path) -> None:
    """Sync the file or folder to disk; a file system that cannot sync it is tolerated."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def mark_used(folder: Path) -> None:
    """Record that a download is used now: retention removes what was not used for long.

    A failure to record it is ignored.
    """
    with contextlib.suppress(OSError):
        os.utime(folder)


def flush(file: BinaryIO) -> None:
    """Flush an open file and sync it to disk, as `sync` does."""
    file.flush()
    _sync(file.fileno())


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Replace `path` atomically when the block ends; after a crash at any instruction it is the complete old or new
    file."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        yield file
        flush(file)
    temporary.replace(path)
    sync(path.parent)


def place(temporary: Path, target: Path) -> None:
    """Rename a complete folder to `target` in one step. Raises OSError where something else is there.

    If they are on different file systems, the folder is first copied next to `target`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(f".{uuid.uuid4().hex}")
        try:
            shutil.copytree(temporary, beside)
            for directory, _, files in os.walk(beside):
                for path in (*(Path(directory) / name for name in files), Path(directory)):
                    sync(path)
            beside.rename(target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)


def place_first(temporary: Path, target: Path) -> None:
    """As `place`, but if another process put the same folder there first, keep that one."""
    try:
        place(temporary, target)
    except OSError:
        if not target.exists():
            raise
