"""Copies files that may change or be exchanged meanwhile: what cannot be copied in one state is refused, so what is checked is what is stored."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from services.chassis.storage.sources.allowed import AllowedSources, path_refusal
from services.trainer.modelling.base_files import BaseFault

_BLOCK = 4 * 1024 * 1024
_State = tuple[int, int, int, int]
Watch = Callable[[int, int], None]
"""Is called with the bytes that are copied, and all that are to be."""


def copied(folder: Path, names: Sequence[str], target: Path, own: Path, allowed: AllowedSources, watch: Watch) -> None:
    """Copy files of `folder` into `target`. Links are followed to what jobs may name, or to what is below `own`.

    Raises BaseFault for a file that is none, that leads elsewhere, or that changes before all are copied.
    """
    files = {name: _real(folder / name, own, allowed) for name in names}
    before = {name: _checked(name, file.lstat()) for name, file in files.items()}
    done, total = 0, sum(size for size, *_ in before.values())
    for name, file in files.items():
        with _opened(file, name, before[name]) as source, (target / name).open("xb") as written:
            while block := source.read(_BLOCK):
                written.write(block)
                done += len(block)
                watch(done, total)
    for name, file in files.items():
        if not file.exists() or _checked(name, file.lstat()) != before[name]:
            raise _changed(name)


def _real(file: Path, own: Path, allowed: AllowedSources) -> Path:
    real = file.resolve()
    if not real.is_relative_to(own.resolve()) and path_refusal(real, allowed):
        raise BaseFault(
            f"its file {file.name} is a link that leads out of the folders that jobs may name", "replace it by a file"
        )
    return real


@contextmanager
def _opened(file: Path, name: str, before: _State) -> Iterator[BinaryIO]:
    """Open a file that was looked at: neither a link nor a pipe in its place, which would never be read to its end."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise _changed(name) from error
    with os.fdopen(descriptor, "rb") as opened:
        if _checked(name, os.fstat(descriptor)) != before:
            raise _changed(name)
        yield opened


def _checked(name: str, known: os.stat_result) -> _State:
    """Return what changes with a file's content. Raises BaseFault for a pipe, a device or a link."""
    if not stat.S_ISREG(known.st_mode):
        raise BaseFault(f"its file {name} is no regular file", "replace it by one")
    return known.st_size, known.st_mtime_ns, known.st_ctime_ns, known.st_ino


def _changed(name: str) -> BaseFault:
    return BaseFault(f"its file {name} changed while it was copied", "finish writing the folder, and import it again")
