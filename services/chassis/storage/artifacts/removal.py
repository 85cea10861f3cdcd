"""Removes artifacts from a store while others put and read: who puts one touches it first and looks for a mark, who removes one does it
the other way round.

So of the two at least one sees the other, on every store that shows at once what was written, without a clock and without locks. A mark
is the file `<store>/removing/<digest>`, with the manifest of what is removed. It is taken away last: one that a killed process left
stands until the next removal has finished that work, and until then nobody puts that artifact.
"""

import contextlib
import hashlib
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from schemas.artifacts import SHA256_PATTERN, Manifest
from services.chassis.storage.artifacts.errors import MANIFEST, StoreAway, store_errors
from services.chassis.storage.artifacts.manifest import safe_path
from services.chassis.storage.artifacts.places import place_in

_SHA256 = re.compile(SHA256_PATTERN)
_PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """An artifact in a store."""

    sha256: str
    at: datetime
    """When it was put last."""
    size: int
    """Bytes of all its files."""


class Removals:
    """What is removed from the store at `root` of a file system."""

    def __init__(self, fs: Any, root: str, uri: str) -> None:
        self._fs, self._root, self._uri = fs, root, uri
        self._local = isinstance(fs, LocalFileSystem)

    def begun(self, sha256: str) -> bool:
        """Return whether somebody removes the artifact right now, or was killed while doing so."""
        self._fs.invalidate_cache()
        with store_errors(self._uri):
            return bool(self._fs.exists(self._mark(sha256)))

    def wait(self, sha256: str) -> None:
        """Wait until nobody removes the artifact. Raises StoreAway if that takes long."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while self.begun(sha256):
            if time.monotonic() > until:
                raise StoreAway(self._uri, f"the removal of artifact {sha256} has not ended; run `neuroweaver retention`")
            time.sleep(_LOOK_SECONDS)

    def whole(self, sha256: str, manifest: Manifest) -> bool:
        """Return whether every file that the manifest names is there, and the manifest."""
        self._fs.invalidate_cache()
        with store_errors(self._uri):
            return self._names(sha256) >= _names_in(manifest)

    def digests(self) -> list[str]:
        """Return the digests of the folders that may be artifacts, by their places in the store."""
        self._fs.invalidate_cache()
        with store_errors(self._uri):
            shelves = list(self._children(f"{self._root}/sha256", "directory"))
            found = [Path(path).name for shelf in shelves for path in self._children(shelf, "directory")]
        return [name for name in found if _SHA256.fullmatch(name)]

    def examine(self, sha256: str) -> StoredArtifact | None:
        """Return the artifact of a digest.

        Of a folder whose manifest has another digest, or that has a file that the manifest does not name or lacks one that it names, it
        returns None: it is somebody else's, or damaged, and a person has to look at it.
        """
        self._fs.invalidate_cache()
        with store_errors(self._uri):
            return self._known(sha256)

    def remove(self, known: StoredArtifact) -> bool:
        """Remove an artifact and return whether that happened; one that was put again since it was listed stays."""
        with store_errors(self._uri), contextlib.suppress(FileNotFoundError):
            raw = self._fs.cat_file(f"{self._folder(known.sha256)}/{MANIFEST}")
            manifest = _manifest(raw, known.sha256)
            if manifest is None:
                return False
            self._fs.makedirs(f"{self._root}/removing", exist_ok=True)
            self._fs.pipe_file(self._mark(known.sha256), raw)
            self._fs.invalidate_cache()
            gone = self._known(known.sha256) == known
            if gone:
                self._take(known.sha256, manifest)
            self._fs.rm_file(self._mark(known.sha256))
            return gone
        return False

    def finish(self) -> None:
        """Finish what killed processes began: files of an artifact without a manifest are removed, and no mark is left."""
        self._fs.invalidate_cache()
        with store_errors(self._uri):
            for path in self._children(f"{self._root}/removing", "file"):
                digest, raw = Path(path).name, self._fs.cat_file(path)
                manifest = _manifest(raw, digest)
                if manifest is None:
                    continue
                if not self._fs.exists(f"{self._folder(digest)}/{MANIFEST}"):
                    self._take(digest, manifest)
                self._fs.rm_file(path)

    def _take(self, sha256: str, manifest: Manifest) -> None:
        """Remove the manifest first, since a folder without one is never read."""
        folder = self._folder(sha256)
        if self._local:
            hidden = Path(self._root) / "tmp" / uuid.uuid4().hex
            hidden.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                Path(folder).rename(hidden)
            shutil.rmtree(hidden, ignore_errors=True)
            return
        for path in (MANIFEST, *(entry.path for entry in manifest.files)):
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(f"{folder}/{path}")

    def _known(self, sha256: str) -> StoredArtifact | None:
        file = f"{self._folder(sha256)}/{MANIFEST}"
        try:
            raw, at = self._fs.cat_file(file), self._fs.modified(file).astimezone(UTC)
        except FileNotFoundError:
            return None
        manifest = _manifest(raw, sha256)
        if manifest is None or self._names(sha256) != _names_in(manifest):
            return None
        return StoredArtifact(sha256, at, sum(entry.size for entry in manifest.files) + len(raw))

    def _names(self, sha256: str) -> set[str]:
        folder = self._folder(sha256)
        return {str(path).removeprefix(f"{folder}/") for path in self._fs.find(folder)}

    def _children(self, folder: str, kind: str) -> Iterator[str]:
        with contextlib.suppress(FileNotFoundError):
            for entry in self._fs.ls(folder, detail=True):
                if entry["type"] == kind and not entry.get("islink"):
                    yield str(entry["name"])

    def _folder(self, sha256: str) -> str:
        return place_in(self._root, sha256)

    def _mark(self, sha256: str) -> str:
        return f"{self._root}/removing/{sha256}"


def _names_in(manifest: Manifest) -> set[str]:
    return {MANIFEST, *(entry.path for entry in manifest.files)}


def _manifest(raw: bytes, sha256: str) -> Manifest | None:
    if hashlib.sha256(raw).hexdigest() != sha256:
        return None
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError:
        return None
    return manifest if all(safe_path(entry.path) for entry in manifest.files) else None
