"""Puts artifacts into a store, fetches and verifies them. A store is a local folder or anything that fsspec knows."""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from schemas.artifacts import ArtifactRef, Manifest, ManifestEntry
from services.chassis.storage.artifacts.erased import Erasures, store_of
from services.chassis.storage.artifacts.errors import (
    MANIFEST,
    ArtifactCorrupt,
    ArtifactErased,
    ArtifactMissing,
    ArtifactRefused,
    StoreAway,
    missing_file_errors,
    store_errors,
)
from services.chassis.storage.artifacts.files import (
    copy_file,
    digest_and_size,
    files_of,
    move,
    open_file,
    remove_leftovers,
    verify_folder,
    write_file,
)
from services.chassis.storage.artifacts.manifest import canonical, parse, require_same_content, require_same_names
from services.chassis.storage.artifacts.places import copy_in, place_in
from services.chassis.storage.artifacts.removal import Removals
from services.chassis.storage.durable import mark_used, sync
from services.chassis.storage.stores import writing

_TIMES = 5
"""How often an artifact is stored that is removed meanwhile."""


class ArtifactStore:
    """The artifacts under one fsspec URI: an absolute path, `file://`, `s3://` or any other that fsspec knows."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._fs, root = fsspec.url_to_fs(uri)
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)
        self.removals = Removals(self._fs, self._root, uri)

    @classmethod
    def of(cls, ref: ArtifactRef) -> "ArtifactStore":
        """Return the store that has an artifact, as its place says."""
        return cls(store_of(ref) or ref.uri)

    def put(self, folder: Path) -> ArtifactRef:
        """Store the files of `folder` durably and return the reference.

        Raises ArtifactRefused for links and odd names, ArtifactErased where rows in these files were erased from the store,
        StorageFailure where the store has no room; partial files are removed.
        """
        paths = files_of(folder)
        size = sum((folder / path).stat().st_size for path in paths)
        with writing(Path(self._root) if self._local else self.uri, size):
            return self._put_local(folder, paths) if self._local else self._put_remote(folder, paths)

    def fetch(self, ref: ArtifactRef, cache: Path) -> Path:
        """Return a verified local folder with the artifact's files, which must not be written to.

        Of a local store it is the stored folder itself, else a copy in the cache. A complete cached copy is reused; a
        download that arrives altered is fetched once more. Raises ArtifactCorrupt, StoreAway, and StorageFailure where the
        cache has no room; ArtifactErased, which is an ArtifactCorrupt, if rows of it were erased.
        """
        with _erased_errors(ref):
            return self._fetch(ref, cache)

    def fetch_remaining(self, ref: ArtifactRef, cache: Path) -> Path:
        """As `fetch`; of an artifact from which rows were erased, the folder has what remains of it."""
        remaining = Erasures(self.uri).remaining(ref.sha256)
        return self.fetch(remaining.ref if remaining else ref, cache)

    def _fetch(self, ref: ArtifactRef, cache: Path) -> Path:
        fs, root = fsspec.url_to_fs(ref.uri)
        if isinstance(fs, LocalFileSystem):
            verify_folder(Path(root), ref)
            return Path(root)
        target = copy_in(cache, ref.sha256)
        if target.exists():
            try:
                verify_folder(target, ref)
            except ArtifactCorrupt:
                shutil.rmtree(target)
            else:
                mark_used(target)
                return target
        temporary = cache / "tmp" / uuid.uuid4().hex
        with writing(cache, ref.size):
            try:
                try:
                    self._download(fs, str(root), ref, temporary)
                except ArtifactMissing:
                    raise
                except ArtifactCorrupt:
                    shutil.rmtree(temporary, ignore_errors=True)
                    self._download(fs, str(root), ref, temporary)
                move(temporary, target, ref)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return target

    def verify(self, ref: ArtifactRef) -> Manifest:
        """Read and compare every file, then return the manifest. Raises ArtifactCorrupt, or ArtifactErased as `fetch` does."""
        with _erased_errors(ref):
            return self._verify(ref)

    def _verify(self, ref: ArtifactRef) -> Manifest:
        fs, root = fsspec.url_to_fs(ref.uri)
        if isinstance(fs, LocalFileSystem):
            return verify_folder(Path(root), ref)
        with store_errors(ref.uri), missing_file_errors(ref.uri, MANIFEST):
            manifest = parse(ref, fs.cat_file(f"{root}/{MANIFEST}"))
        fs.invalidate_cache()
        with store_errors(ref.uri):
            found = {str(path).removeprefix(f"{root}/") for path in fs.find(root)}
        require_same_names(ref, manifest, found)
        for entry in manifest.files:
            with _reading(fs, root, ref, entry) as file:
                digests = digest_and_size(file)
            require_same_content(ref, entry, *digests)
        return manifest

    def stored(self, digest: str) -> ArtifactRef | None:
        """Return the reference to the artifact that this store keeps under a digest, as its manifest says; None if it has none."""
        path = self._path(digest)
        try:
            with store_errors(self.uri):
                raw = self._fs.cat_file(f"{path}/{MANIFEST}")
        except FileNotFoundError:
            return None
        size = sum(entry.size for entry in Manifest.model_validate_json(raw).files)
        return ArtifactRef(uri=self._uri(path), sha256=digest, size=size)

    def is_own(self, ref: ArtifactRef) -> bool:
        """Whether the reference leads to where this store keeps an artifact of that digest."""
        return ref.uri == self._uri(self._path(ref.sha256))

    def _refuse_erased(self, ref: ArtifactRef) -> None:
        if remaining := Erasures(self.uri).remaining(ref.sha256):
            raise ArtifactErased(ref.uri, remaining.ref.uri)

    def _uri(self, path: str) -> str:
        return path if self._local else str(self._fs.unstrip_protocol(path))

    def _ref(self, manifest: Manifest) -> ArtifactRef:
        digest = hashlib.sha256(canonical(manifest)).hexdigest()
        path = self._path(digest)
        size = sum(entry.size for entry in manifest.files)
        return ArtifactRef(uri=self._uri(path), sha256=digest, size=size)

    def _path(self, digest: str) -> str:
        return place_in(self._root, digest)

    def _put_local(self, folder: Path, paths: list[str]) -> ArtifactRef:
        scratch = Path(self._root) / "tmp"
        remove_leftovers(scratch)
        temporary = scratch / uuid.uuid4().hex
        try:
            entries = [copy_file(folder / path, temporary / path, path) for path in paths]
            manifest = Manifest(files=tuple(entries))
            write_file(temporary / MANIFEST, canonical(manifest))
            for directory, _, _ in os.walk(temporary):
                sync(Path(directory))
            ref = self._ref(manifest)
            self._refuse_erased(ref)
            self._settle(ref, manifest, lambda: self._move(temporary, ref))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return ref

    def _put_remote(self, folder: Path, paths: list[str]) -> ArtifactRef:
        entries = []
        for path in paths:
            with open_file(folder / path) as file:
                digest, size = digest_and_size(file)
            entries.append(ManifestEntry(path=path, size=size, sha256=digest))
        manifest = Manifest(files=tuple(entries))
        ref = self._ref(manifest)
        self._refuse_erased(ref)
        self._settle(ref, manifest, lambda: self._upload(folder, manifest, ref))
        return ref

    def _settle(self, ref: ArtifactRef, manifest: Manifest, store: Callable[[], None]) -> None:
        """Store an artifact or touch the one that is there, until that happened while nobody removed it. Raises StoreAway."""
        for _ in range(_TIMES):
            self.removals.wait(ref.sha256)
            store()
            if not self.removals.begun(ref.sha256) and self.removals.whole(ref.sha256, manifest):
                return
        raise StoreAway(self.uri, f"artifact {ref.sha256} was removed again and again while it was stored")

    def _move(self, temporary: Path, ref: ArtifactRef) -> None:
        with contextlib.suppress(FileNotFoundError):  # what was there was removed just now
            move(temporary, Path(ref.uri), ref)

    def _upload(self, folder: Path, manifest: Manifest, ref: ArtifactRef) -> None:
        try:
            self.verify(ref)
        except (ArtifactCorrupt, StoreAway):  # the first artifact creates the store
            self._upload_files(folder, manifest, ref)
        with store_errors(self.uri):
            self._fs.pipe_file(f"{self._path(ref.sha256)}/{MANIFEST}", canonical(manifest))

    def _upload_files(self, folder: Path, manifest: Manifest, ref: ArtifactRef) -> None:
        root = self._path(ref.sha256)
        for entry in manifest.files:
            with (
                store_errors(self.uri),
                open_file(folder / entry.path) as source,
                self._fs.open(f"{root}/{entry.path}", "wb") as target,
            ):
                digest, _ = digest_and_size(source, target)
            if digest != entry.sha256:
                raise ArtifactRefused(f"{folder / entry.path} changed while it was stored; finish writing it first")

    def _download(self, fs: fsspec.AbstractFileSystem, root: str, ref: ArtifactRef, temporary: Path) -> None:
        with store_errors(ref.uri), missing_file_errors(ref.uri, MANIFEST):
            raw = fs.cat_file(f"{root}/{MANIFEST}")
        manifest = parse(ref, raw)
        for entry in manifest.files:
            path = temporary / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with _reading(fs, root, ref, entry) as source, path.open("xb") as target:
                found = digest_and_size(source, target)
            require_same_content(ref, entry, *found)
        write_file(temporary / MANIFEST, raw)


@contextlib.contextmanager
def _erased_errors(ref: ArtifactRef) -> Iterator[None]:
    """Turn the error of a file that is gone because rows in it were erased into ArtifactErased."""
    try:
        yield
    except ArtifactErased:
        raise
    except ArtifactCorrupt as corrupt:
        store = store_of(ref)
        remaining = Erasures(store).remaining(ref.sha256) if store else None
        if remaining is None:
            raise
        raise ArtifactErased(ref.uri, remaining.ref.uri) from corrupt


@contextlib.contextmanager
def _reading(fs: fsspec.AbstractFileSystem, root: str, ref: ArtifactRef, entry: ManifestEntry) -> Iterator[BinaryIO]:
    with store_errors(ref.uri), missing_file_errors(ref.uri, entry.path), fs.open(f"{root}/{entry.path}", "rb") as file:
        yield file
