"""Reads the files of a folder that somebody else made: regular files only, of bounded size, and never through a link."""

import errno
import os
import stat
from pathlib import Path

from services.audit.bundle.faults import Differs
from services.audit.bundle.limits import FILE_BYTES

_ENTRIES = 1000


def entries(folder: Path) -> dict[str, str]:
    """Return what is directly in a folder: `file`, `folder`, or what else it is, by name. Raises OSError."""
    found = {}
    with os.scandir(folder) as listed:
        for entry in listed:
            mode = entry.stat(follow_symlinks=False).st_mode
            found[entry.name] = _kind(mode)
            if len(found) > _ENTRIES:
                break
    return found


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "a link" if stat.S_ISLNK(mode) else "a pipe or a device"


def content(folder: Path, name: str, limit: int = FILE_BYTES) -> bytes:
    """Return a file of the folder of at most `limit` bytes. Raises Differs."""
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise Differs(name, "a file", "nothing") from None
    except OSError as error:
        found = "a link" if error.errno == errno.ELOOP else f"a file that cannot be read ({error.strerror})"
        raise Differs(name, "a file", found) from None
    known = os.fstat(descriptor)
    if not stat.S_ISREG(known.st_mode):
        os.close(descriptor)
        raise Differs(name, "a file", _kind(known.st_mode))
    with os.fdopen(descriptor, "rb") as file:
        if known.st_size > limit:
            raise Differs(name, f"at most {limit} bytes", f"{known.st_size} bytes")
        try:
            found_bytes = file.read(known.st_size + 1)
        except OSError as error:
            raise Differs(name, "a file", f"a file that cannot be read ({error.strerror})") from None
    if len(found_bytes) > known.st_size:
        raise Differs(name, f"{known.st_size} bytes", "more: the file grew while it was read")
    return found_bytes
