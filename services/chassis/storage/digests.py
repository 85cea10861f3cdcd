"""Computes the SHA-256 of files."""

import hashlib
from pathlib import Path

from schemas.artifacts import ManifestEntry


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entry_of(path: Path, name: str) -> ManifestEntry:
    """Return the manifest's entry, under `name`, for the file at `path`."""
    return ManifestEntry(path=name, size=path.stat().st_size, sha256=file_sha256(path))
