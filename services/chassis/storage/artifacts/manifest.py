"""Reads and writes the manifest of an artifact, and compares what was found with it."""

import hashlib
import json
from pathlib import PurePosixPath

from pydantic import ValidationError

from schemas.artifacts import ArtifactRef, Manifest, ManifestEntry
from services.chassis.storage.artifacts.errors import MANIFEST, ArtifactCorrupt

MANIFEST_LIMIT = 64 * 1024 * 1024
"""A longer manifest is not read whole, and so is corrupt."""


def canonical(manifest: Manifest) -> bytes:
    """The bytes that are stored and digested: JSON with sorted keys and without spaces, UTF-8."""
    return json.dumps(manifest.model_dump(), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def parse(ref: ArtifactRef, raw: bytes) -> Manifest:
    """The manifest in `raw`. Raises ArtifactCorrupt where it is not the one that `ref` promises."""
    digest = hashlib.sha256(raw).hexdigest()
    if digest != ref.sha256:
        raise ArtifactCorrupt(ref.uri, MANIFEST, f"sha256 {ref.sha256}", f"sha256 {digest}")
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise ArtifactCorrupt(ref.uri, MANIFEST, "a manifest", f"{error.error_count()} faults") from error
    for entry in manifest.files:
        if not safe_path(entry.path) or entry.path == MANIFEST:
            raise ArtifactCorrupt(ref.uri, MANIFEST, "plain relative paths", repr(entry.path))
    size = sum(entry.size for entry in manifest.files)
    if size != ref.size:
        raise ArtifactCorrupt(ref.uri, MANIFEST, f"{ref.size} bytes in all", f"{size} bytes")
    return manifest


def require_same_names(ref: ArtifactRef, manifest: Manifest, found: set[str]) -> None:
    """Raises ArtifactCorrupt unless `found` has the files of the manifest, the manifest and nothing else."""
    expected = {entry.path for entry in manifest.files} | {MANIFEST}
    for path in sorted(expected - found):
        raise ArtifactCorrupt(ref.uri, path, "a file", "nothing")
    for path in sorted(found - expected):
        raise ArtifactCorrupt(ref.uri, path, "nothing (the manifest does not name it)", "a file")


def require_same_content(ref: ArtifactRef, entry: ManifestEntry, digest: str, size: int) -> None:
    """Raises ArtifactCorrupt unless a file has the digest and size of its entry."""
    if (digest, size) != (entry.sha256, entry.size):
        found = f"sha256 {digest} of {size} bytes"
        raise ArtifactCorrupt(ref.uri, entry.path, f"sha256 {entry.sha256} of {entry.size} bytes", found)


def safe_path(path: str) -> bool:
    """Whether `path` is a plain relative POSIX path that stays below its root on every file system."""
    parts = path.split("/")
    plain = path.isprintable() and "\\" not in path and ":" not in path
    return plain and not PurePosixPath(path).is_absolute() and not {"", ".", ".."} & set(parts)
