"""Recognises why a folder or store cannot be written (full, quota, read-only, no permission), with bytes free and needed.

A retry cannot help and no request is at fault: a person must make room. So this failure is distinguished from all others,
however deep in a library it occurs and whatever error type the library turns it into.
"""

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from schemas.base import Frozen
from services.chassis.process.transient import described

FULL, QUOTA, READ_ONLY, DENIED = (
    "the disk is full",
    "the quota is used up",
    "the file system is read-only",
    "access is denied",
)

_BY_NUMBER = {errno.ENOSPC: FULL, errno.EDQUOT: QUOTA, errno.EROFS: READ_ONLY}
_BY_TEXT = {
    "No space left on device": FULL,
    "os error 28": FULL,
    "Not enough disk space": FULL,
    "not enough free disk space": FULL,
    "database or disk is full": FULL,
    "PytorchStreamWriter failed writing": FULL,
    "enforce fail at inline_container": FULL,
    "StorageFull": FULL,
    "InsufficientStorage": FULL,
    "Insufficient Storage": FULL,
    "Disk quota exceeded": QUOTA,
    "QuotaExceeded": QUOTA,
    "os error 122": QUOTA,
    "Read-only file system": READ_ONLY,
    "os error 30": READ_ONLY,
}
"""Texts of libraries without errno: Rust (safetensors, tokenizers), Arrow, datasets, SQLite, PyTorch, object stores."""


class Unwritable(Frozen):
    """A failed write, with the facts that help to correct it."""

    place: str = Field(description="Folder, or URI of a store.")
    why: str
    free: int | None = Field(default=None, description="Bytes that are free there; null if unknown.")
    wanted: int | None = Field(default=None, description="Bytes that were to be written; null if unknown.")
    said: str = Field(default="", description="The error itself.")

    def __str__(self) -> str:
        room = [] if self.free is None else [f"{amount(self.free)} free"]
        room += [] if self.wanted is None else [f"{amount(self.wanted)} wanted"]
        sentence = f"{self.place} cannot be written: {self.why}"
        return sentence + (f", {', '.join(room)}" if room else "") + (f" ({self.said})" if self.said else "")


class StorageFailure(OSError):
    """A write failed for a known reason; the message says what, where and why."""

    def __init__(self, found: Unwritable) -> None:
        super().__init__(str(found))
        self.unwritable = found


@dataclass(frozen=True, slots=True)
class Space:
    """What a file system reports."""

    free: int
    """Bytes that this process may still write."""
    nodes: bool
    """Whether another file can be created."""
    read_only: bool
    denied: bool
    """Whether this process may not write into the folder."""


def amount(size: int) -> str:
    """Return a number of bytes, rounded and exact: `12.6 MB (12582912 bytes)`."""
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name} ({size} bytes)"
    return f"{size} bytes"


def space(folder: Path) -> Space:
    """Return the space of the file system on which `folder` is, or would be created.

    Raises OSError if it does not answer.
    """
    there = _nearest(folder)
    found = os.statvfs(there)
    return Space(
        free=found.f_bavail * found.f_frsize,
        nodes=not found.f_files or found.f_favail > 0,
        read_only=bool(found.f_flag & os.ST_RDONLY),
        denied=not os.access(there, os.W_OK | os.X_OK),
    )


def obstacle(folder: Path, known: Space, least: int) -> Unwritable | None:
    """Return why work that writes to `folder` must not begin; None if `least` bytes are free and the folder is writable."""
    if known.read_only:
        return Unwritable(place=str(folder), why=READ_ONLY)
    if known.denied:
        return Unwritable(place=str(folder), why=DENIED)
    if not known.nodes:
        return Unwritable(place=str(folder), why=f"{FULL}, it has no room for another file", free=known.free)
    return Unwritable(place=str(folder), why=FULL, free=known.free, wanted=least) if known.free < least else None


@contextlib.contextmanager
def writing(place: Path | str, wanted: int | None = None) -> Iterator[None]:
    """Turn an error of the block that means that nothing can be written into a StorageFailure that names `place`.

    The block removes its partial files before the error gets here; `free` is measured after that.
    """
    try:
        yield
    except StorageFailure:
        raise
    except Exception as error:
        why = reason(error, [place] if isinstance(place, Path) else [])
        if why is None:
            raise
        free = _free(place) if isinstance(place, Path) else None
        said = described(error)
        raise StorageFailure(Unwritable(place=str(place), why=why, free=free, wanted=wanted, said=said)) from error


def unwritable(error: BaseException, own: Sequence[Path]) -> Unwritable | None:
    """Return the storage failure that `error` or one of its causes means; None if it is no storage error.

    `own` are the folders that this process writes to: only there a permission error is a storage error. If the error names
    no file, the folder with the least free space is reported.
    """
    for cause in chain(error):
        if isinstance(cause, StorageFailure):
            return cause.unwritable
        if (why := _why(cause, own)) is not None:
            folder = _folder_of(cause) or _fullest(own)
            place, free = ("?", None) if folder is None else (str(folder), _free(folder))
            return Unwritable(place=place, why=why, free=free, said=described(cause))
    return None


def measured(found: Unwritable) -> Unwritable:
    """Return the same, with the space that is free now: more, once partial files have been removed."""
    return found if found.free is None else found.model_copy(update={"free": _free(Path(found.place))})


def reason(error: BaseException, own: Sequence[Path]) -> str | None:
    """Return the reason of a storage error; None for any other error."""
    return next((why for cause in chain(error) if (why := _why(cause, own)) is not None), None)


def reason_in(text: str) -> str | None:
    """Return the storage error, if any, in the last output of a program."""
    return next((why for sign, why in _BY_TEXT.items() if sign in text), None)


def _why(error: BaseException, own: Sequence[Path]) -> str | None:
    if isinstance(error, OSError) and error.errno in _BY_NUMBER:
        return _BY_NUMBER[error.errno]
    if isinstance(error, PermissionError):
        named = _file_of(error)
        return DENIED if named is not None and any(named.is_relative_to(folder) for folder in own) else None
    return reason_in(str(error)) if _has_library_text(error) else None


def _has_library_text(error: BaseException) -> bool:
    """Return whether the error's text comes from a library: that of a ValueError, or of this project's errors, may quote
    user data."""
    if isinstance(error, ValueError | LookupError | TypeError):
        return False
    return isinstance(error, OSError | RuntimeError) or type(error) is Exception or foreign(type(error))


def foreign(kind: type) -> bool:
    """Return whether an error type belongs to a library."""
    return kind.__module__.partition(".")[0] not in ("builtins", "services", "schemas")


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, as a traceback shows them."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _file_of(error: BaseException) -> Path | None:
    name = getattr(error, "filename", None)
    return Path(os.fsdecode(name)) if isinstance(name, str | bytes) and name else None


def _folder_of(error: BaseException) -> Path | None:
    """Return the folder, or its nearest existing parent, of the file that the error names."""
    named = _file_of(error)
    return None if named is None else _nearest(named.parent)


def _nearest(folder: Path) -> Path:
    """Return the folder, or its nearest existing parent."""
    return next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))


def _fullest(folders: Sequence[Path]) -> Path | None:
    known = [(free, folder) for folder in folders if (free := _free(folder)) is not None]
    return min(known, key=lambda one: one[0])[1] if known else None


def _free(folder: Path) -> int | None:
    try:
        return space(folder).free
    except OSError:
        return None
