"""The files of an artifact on a local disk: listed, read without following links, copied durably, verified and moved into place."""

import contextlib
import hashlib
import os
import shutil
import stat
import time
from pathlib import Path
from typing import BinaryIO

from schemas.artifacts import ArtifactRef, Manifest, ManifestEntry
from services.chassis.storage.artifacts.errors import MANIFEST, ArtifactCorrupt, ArtifactRefused, missing_file_errors
from services.chassis.storage.artifacts.manifest import (
    MANIFEST_LIMIT,
    parse,
    require_same_content,
    require_same_names,
    safe_path,
)
from services.chassis.storage.durable import flush, place, sync

_BLOCK = 1024 * 1024
_LEFTOVER_SECONDS = 24 * 3600


def files_of(folder: Path, reserved: tuple[str, ...] = (MANIFEST,)) -> list[str]:
    """Relative POSIX paths of all files, sorted. Links, devices and odd names are refused."""
    if not folder.is_dir():
        raise ArtifactRefused(f"{folder} is not a folder; store a folder")
    paths: list[str] = []
    for directory, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            full = Path(directory) / name
            path = full.relative_to(folder).as_posix()
            mode = full.lstat().st_mode
            if not safe_path(path):
                raise ArtifactRefused(f"{path!r} is not a plain name; rename it")
            if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                raise ArtifactRefused(f"{path} is a link or a device; replace it by a regular file")
            if stat.S_ISREG(mode):
                paths.append(path)
    for path in reserved:
        if path in paths:
            raise ArtifactRefused(f"{path} is the name of the manifest; rename the file")
    if not paths:
        raise ArtifactRefused(f"{folder} contains no file; an artifact needs at least one")
    return sorted(paths)


def verify_folder(folder: Path, ref: ArtifactRef) -> Manifest:
    """Read and compare every file of a local artifact, then return its manifest. Raises ArtifactCorrupt."""
    with missing_file_errors(ref.uri, MANIFEST), open_file(folder / MANIFEST) as file:
        manifest = parse(ref, file.read(MANIFEST_LIMIT))
    try:
        found = set(files_of(folder, reserved=()))
    except ArtifactRefused as error:
        raise ArtifactCorrupt(ref.uri, str(error), "regular files only", "something else") from error
    require_same_names(ref, manifest, found)
    for entry in manifest.files:
        with missing_file_errors(ref.uri, entry.path), open_file(folder / entry.path) as file:
            require_same_content(ref, entry, *digest_and_size(file))
    return manifest


def open_file(path: Path) -> BinaryIO:
    """Open for reading; a link as the last part of the path is not followed."""
    return os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb")


def digest_and_size(source: BinaryIO, target: BinaryIO | None = None) -> tuple[str, int]:
    """SHA-256 and size of all that `source` yields, which is also copied to `target` if one is given."""
    digest, size = hashlib.sha256(), 0
    while block := source.read(_BLOCK):
        digest.update(block)
        size += len(block)
        if target is not None:
            target.write(block)
    return digest.hexdigest(), size


def copy_file(source: Path, target: Path, path: str) -> ManifestEntry:
    """Copy a file durably, and return its entry under `path`, as it was read."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_file(source) as reading, target.open("xb") as writing:
        digest, size = digest_and_size(reading, writing)
        flush(writing)
    return ManifestEntry(path=path, size=size, sha256=digest)


def write_file(path: Path, content: bytes) -> None:
    """Write a new file durably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        flush(file)


def move(temporary: Path, target: Path, ref: ArtifactRef) -> None:
    """Move a complete folder to `target`.

    A folder that is there already stays if it is intact, and counts as put now; it is replaced otherwise.
    """
    try:
        place(temporary, target)
    except OSError:
        if not target.exists():
            raise
        try:
            verify_folder(target, ref)
            os.utime(target / MANIFEST)
        except ArtifactCorrupt:
            broken = temporary.with_name(f"{temporary.name}.broken")
            place(target, broken)
            place(temporary, target)
            shutil.rmtree(broken, ignore_errors=True)
    sync(target.parent)
    sync(target.parent.parent)


def remove_leftovers(scratch: Path) -> None:
    """Remove what killed processes left behind: files older than a day, since no write takes that long."""
    with contextlib.suppress(OSError):
        for path in scratch.iterdir():
            if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
