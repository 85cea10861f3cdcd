"""Finds and removes expired files and folders; it follows no links, and a folder disappears in one step, never in part."""

import asyncio
import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from services.chassis.storage.retention.decision import RemovalCandidate, expired
from services.chassis.storage.retention.policy import RetentionRule
from services.chassis.storage.retention.run import RemovedAmount


def measured(path: Path, *, referenced: bool = False, at: datetime | None = None) -> RemovalCandidate | None:
    """A file or folder with its bytes and the time of its newest change, or `at` if that is later; None if it is gone.

    A link is measured itself; its target is not.
    """
    try:
        newest, size = _of(path.lstat())
        for entry in _below(path):
            with contextlib.suppress(FileNotFoundError):
                changed, more = _of(entry.stat(follow_symlinks=False))
                newest, size = max(newest, changed), size + more
    except FileNotFoundError:
        return None
    changed_at = datetime.fromtimestamp(newest, UTC)
    return RemovalCandidate(path, changed_at if at is None else max(at, changed_at), size, referenced)


def subfolders(folder: Path) -> list[Path]:
    """Real folders in `folder`, sorted; none where there is no such folder."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    return []


def is_empty(folder: Path) -> bool:
    """Whether it is a real folder without content."""
    return not folder.is_symlink() and folder.is_dir() and next(iter(os.scandir(folder)), None) is None


def _of(known: os.stat_result) -> tuple[float, int]:
    return known.st_mtime, known.st_size if stat.S_ISREG(known.st_mode) else 0


def _below(path: Path) -> Iterator[os.DirEntry[str]]:
    if path.is_symlink() or not path.is_dir():
        return
    try:
        entries = list(os.scandir(path))
    except FileNotFoundError:
        return
    for entry in entries:
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path))


@dataclass(frozen=True)
class Files:
    """Removes files or folders of one kind."""

    kind: str
    rule: RetentionRule
    find: Callable[[], Awaitable[Sequence[RemovalCandidate]]]
    """Finds everything of the kind, including what is referenced."""

    async def apply(self, *, dry: bool) -> RemovedAmount:
        """Remove what is no longer kept. What was used after it was found is kept."""
        going = expired(self.rule, datetime.now(UTC), await self.find())
        if not dry:
            going = [one for one in going if await asyncio.to_thread(_remove, one)]
        return RemovedAmount(len(going), sum(one.size for one in going))


def _remove(found: RemovalCandidate) -> bool:
    """Remove it and return whether that happened. It is renamed first, so that a reader sees all of it or nothing."""
    path = found.path
    hidden = path.with_name(f".removed-{uuid.uuid4().hex}{path.suffix}")
    try:
        if is_empty(path):
            path.rmdir()
            return True
        path.rename(hidden)
    except OSError as error:  # another process was faster, or has just created a file in it
        if error.errno in (errno.ENOENT, errno.ENOTEMPTY):
            return False
        raise
    again = measured(hidden)
    if again is not None and again.at > found.at and not path.exists():  # it was used meanwhile
        hidden.rename(path)
        return False
    if hidden.is_dir() and not hidden.is_symlink():
        shutil.rmtree(hidden)
    else:
        hidden.unlink()
    return True
