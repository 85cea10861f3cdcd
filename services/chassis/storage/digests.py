"""What a file holds, as its SHA-256."""

import hashlib
from pathlib import Path

from schemas.artifacts import ManifestEntry


def file_sha256(path: Path) -> str:
    """Lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entry_of(path: Path, name: str) -> ManifestEntry:
    """How a manifest names a file that lies at `path`."""
    return ManifestEntry(path=name, size=path.stat().st_size, sha256=file_sha256(path))
