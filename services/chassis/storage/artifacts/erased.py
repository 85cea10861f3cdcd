"""Keeps in a store what was erased from it: the digests of rows, and for each artifact that had some of them what remains of it.

An artifact keeps its digest, its manifest and its files without rows. What remains of it is an artifact of its own, so that it is verified
like any other; the note that leads there is beside the artifacts, since an artifact never changes.
"""

from collections.abc import Iterable
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import Field

from schemas.artifacts import ArtifactRef
from schemas.base import Frozen
from services.chassis.storage.artifacts.errors import store_errors
from services.chassis.storage.artifacts.places import place_in
from services.chassis.storage.durable import replacing

_DEEPEST = 1000
"""The most times that rows can be erased from one artifact, one erasure after the other."""


class Remaining(Frozen):
    """What remains of an artifact whose rows were erased."""

    ref: ArtifactRef
    rows: int = Field(description="Number of rows that were erased from the artifact in all.")


class Erasures:
    """What was erased from the store at `uri`. Each call raises StoreAway where the store does not answer."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._fs, root = fsspec.url_to_fs(uri)
        self._root = f"{str(root).rstrip('/')}/erased"

    def mark(self, digests: Iterable[str]) -> None:
        """Note that rows with these digests are erased; what is noted already stays."""
        known = self.rows()
        for digest in sorted(set(digests) - known):
            self._write(f"rows/{digest}", b"\n")

    def rows(self) -> frozenset[str]:
        """Return the digests of all erased rows."""
        return self._names("rows")

    def leave(self, sha256: str, remaining: Remaining) -> None:
        """Note what remains of an artifact."""
        self._write(f"artifacts/{sha256}", remaining.model_dump_json().encode())

    def artifacts(self) -> frozenset[str]:
        """Return the digests of the artifacts from which rows were erased."""
        return self._names("artifacts")

    def chain(self, sha256: str) -> list[Remaining]:
        """Return what remained of an artifact after each erasure, the last one last; nothing if no row of it was erased."""
        found: list[Remaining] = []
        while (one := self._read(found[-1].ref.sha256 if found else sha256)) is not None and len(found) < _DEEPEST:
            found.append(one)
        return found

    def remains(self) -> set[str]:
        """Return the digests of all that remains of artifacts, which only the notes of this store reference."""
        return {one.ref.sha256 for sha256 in self.artifacts() for one in self.chain(sha256)}

    def remaining(self, sha256: str) -> Remaining | None:
        """Return what remains of an artifact now; None if no row of it was erased."""
        found = self.chain(sha256)
        return found[-1] if found else None

    def _read(self, sha256: str) -> Remaining | None:
        try:
            with store_errors(self.uri):
                return Remaining.model_validate_json(self._fs.cat_file(f"{self._root}/artifacts/{sha256}"))
        except FileNotFoundError:
            return None

    def _names(self, kind: str) -> frozenset[str]:
        try:
            with store_errors(self.uri):
                self._fs.invalidate_cache()
                paths = self._fs.ls(f"{self._root}/{kind}", detail=False)
        except FileNotFoundError:
            return frozenset()
        names = (str(path).rpartition("/")[2] for path in paths)
        return frozenset(name for name in names if not name.startswith("."))

    def _write(self, name: str, content: bytes) -> None:
        path = f"{self._root}/{name}"
        if isinstance(self._fs, LocalFileSystem):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with replacing(Path(path)) as file:
                file.write(content)
        else:
            with store_errors(self.uri):
                self._fs.pipe_file(path, content)


def store_of(ref: ArtifactRef) -> str | None:
    """Return the URI of the store that has an artifact; None if its place does not say so."""
    root, found, _ = ref.uri.rpartition(place_in("", ref.sha256))
    return root if found else None
