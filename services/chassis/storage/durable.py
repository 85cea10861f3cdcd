"""Files that are on disk when a call returns, and folders that appear whole or not at all, on every file system we meet."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF)
"""How file systems say that they cannot sync what is asked for: folders over SMB, everything on some FUSE mounts."""


def sync(path: Path) -> None:
    """Have the file or folder written to disk. Where the file system knows no such thing, its durability is what there is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def mark_used(folder: Path) -> None:
    """Note that a download is of use now: what was not used for long is removed. Where it cannot be noted, it is fetched again."""
    with contextlib.suppress(OSError):
        os.utime(folder)


def flush(file: BinaryIO) -> None:
    """Have all that was written to an open file on disk, as `sync` does."""
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
    """What is written takes the place of `path` when the block ends; after a crash at any instruction that is the old file or the new, whole."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        yield file
        flush(file)
    temporary.replace(path)
    sync(path.parent)


def place(temporary: Path, target: Path) -> None:
    """Give a complete folder its name, in one step. Raises OSError where something else lies there.

    Where the two are on different file systems, it is copied beside its place first.
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
    """As `place`, unless somebody else was faster: then what lies there is as good."""
    try:
        place(temporary, target)
    except OSError:
        if not target.exists():
            raise
