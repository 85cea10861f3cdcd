"""Stores bulk data as content-addressed folders: a manifest has the digests of the files, a reference that of the manifest.

Layout: `<store>/sha256/<first two>/<digest>/` with the files and `manifest.json`. A local artifact is written to
`<store>/tmp`, synced and renamed; in an object store the manifest is written last. A folder without a manifest is
incomplete and never read. Putting the same content twice is harmless. All calls block: use them in child processes and
threads.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from schemas.artifacts import ArtifactRef, Manifest, ManifestEntry
from services.chassis.process.transient import described
from services.chassis.storage.durable import flush, mark_used, place, sync
from services.chassis.storage.stores import foreign, writing

MANIFEST = "manifest.json"
_BLOCK = 1024 * 1024
_MANIFEST_LIMIT = 64 * 1024 * 1024
_LEFTOVER_SECONDS = 24 * 3600


class ArtifactCorrupt(Exception):
    """An artifact differs from what its reference promises and is not used; the message names the file and the remedy."""

    def __init__(self, uri: str, file: str, expected: str, found: str) -> None:
        super().__init__(
            f"artifact {uri}: file {file}: expected {expected}, found {found}; "
            "restore the folder from a copy, or delete it and run the step that made it again"
        )
        self.uri, self.file, self.expected, self.found = uri, file, expected, found


class ArtifactMissing(ArtifactCorrupt):
    """The store exists, but it holds no artifact at the reference."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri, MANIFEST, "a file", "nothing: the artifact is missing")


class StoreAway(OSError):
    """The store does not answer or does not exist; nothing is known about the artifact, and a retry may help."""

    def __init__(self, uri: str, why: str) -> None:
        super().__init__(f"artifact store of {uri}: {why}; restore it, or correct NEUROWEAVER_ARTIFACTS")


class ArtifactRefused(ValueError):
    """A folder cannot become an artifact."""


class ArtifactStore:
    """The artifacts under one fsspec URI: an absolute path, `file://`, `s3://` or any other that fsspec knows."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._fs, root = fsspec.url_to_fs(uri)
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)

    def put(self, folder: Path) -> ArtifactRef:
        """Store the files of `folder` durably and return the reference.

        Raises ArtifactRefused for links and odd names, StorageFailure where the store has no room; partial files are
        removed.
        """
        paths = _files_of(folder)
        size = sum((folder / path).stat().st_size for path in paths)
        with writing(Path(self._root) if self._local else self.uri, size):
            return self._put_local(folder, paths) if self._local else self._put_remote(folder, paths)

    def fetch(self, ref: ArtifactRef, cache: Path) -> Path:
        """Return a verified local folder with the artifact's files, which must not be written to.

        Of a local store it is the stored folder itself, else a copy in the cache. A complete cached copy is reused; a
        download that arrives altered is fetched once more. Raises ArtifactCorrupt, StoreAway, and StorageFailure where the
        cache has no room.
        """
        fs, root = fsspec.url_to_fs(ref.uri)
        if isinstance(fs, LocalFileSystem):
            verify_folder(Path(root), ref)
            return Path(root)
        target = cache / "artifacts" / ref.sha256[:2] / ref.sha256
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
                _move(temporary, target, ref)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return target

    def verify(self, ref: ArtifactRef) -> Manifest:
        """Read and compare every file, then return the manifest. Raises ArtifactCorrupt."""
        fs, root = fsspec.url_to_fs(ref.uri)
        if isinstance(fs, LocalFileSystem):
            return verify_folder(Path(root), ref)
        with _store_errors(ref.uri), _missing_file_errors(ref.uri, MANIFEST):
            manifest = _parse(ref, fs.cat_file(f"{root}/{MANIFEST}"))
        fs.invalidate_cache()
        with _store_errors(ref.uri):
            found = {str(path).removeprefix(f"{root}/") for path in fs.find(root)}
        _same_names(ref, manifest, found)
        for entry in manifest.files:
            with _reading(fs, root, ref, entry) as file:
                digests = _digest(file)
            _same_content(ref, entry, *digests)
        return manifest

    def _ref(self, manifest: Manifest) -> ArtifactRef:
        digest = hashlib.sha256(canonical(manifest)).hexdigest()
        path = self._path(digest)
        size = sum(entry.size for entry in manifest.files)
        return ArtifactRef(uri=path if self._local else self._fs.unstrip_protocol(path), sha256=digest, size=size)

    def _path(self, digest: str) -> str:
        return f"{self._root}/sha256/{digest[:2]}/{digest}"

    def _put_local(self, folder: Path, paths: list[str]) -> ArtifactRef:
        scratch = Path(self._root) / "tmp"
        _remove_leftovers(scratch)
        temporary = scratch / uuid.uuid4().hex
        try:
            entries = [_copy(folder / path, temporary / path, path) for path in paths]
            manifest = Manifest(files=tuple(entries))
            _write(temporary / MANIFEST, canonical(manifest))
            for directory, _, _ in os.walk(temporary):
                sync(Path(directory))
            ref = self._ref(manifest)
            _move(temporary, Path(ref.uri), ref)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return ref

    def _put_remote(self, folder: Path, paths: list[str]) -> ArtifactRef:
        entries = []
        for path in paths:
            with _open(folder / path) as file:
                digest, size = _digest(file)
            entries.append(ManifestEntry(path=path, size=size, sha256=digest))
        manifest = Manifest(files=tuple(entries))
        ref = self._ref(manifest)
        with contextlib.suppress(ArtifactCorrupt, StoreAway):  # the first artifact creates the store
            self.verify(ref)
            return ref
        root = self._path(ref.sha256)
        for entry in manifest.files:
            with (
                _store_errors(self.uri),
                _open(folder / entry.path) as source,
                self._fs.open(f"{root}/{entry.path}", "wb") as target,
            ):
                digest, _ = _digest(source, target)
            if digest != entry.sha256:
                raise ArtifactRefused(f"{folder / entry.path} changed while it was stored; finish writing it first")
        with _store_errors(self.uri):
            self._fs.pipe_file(f"{root}/{MANIFEST}", canonical(manifest))
        return ref

    def _download(self, fs: fsspec.AbstractFileSystem, root: str, ref: ArtifactRef, temporary: Path) -> None:
        with _store_errors(ref.uri), _missing_file_errors(ref.uri, MANIFEST):
            raw = fs.cat_file(f"{root}/{MANIFEST}")
        manifest = _parse(ref, raw)
        for entry in manifest.files:
            path = temporary / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with _reading(fs, root, ref, entry) as source, path.open("xb") as target:
                found = _digest(source, target)
            _same_content(ref, entry, *found)
        _write(temporary / MANIFEST, raw)


def canonical(manifest: Manifest) -> bytes:
    """The bytes that are stored and digested: JSON with sorted keys and without spaces, UTF-8."""
    return json.dumps(manifest.model_dump(), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def verify_folder(folder: Path, ref: ArtifactRef) -> Manifest:
    """Read and compare every file of a local artifact, then return its manifest. Raises ArtifactCorrupt."""
    with _missing_file_errors(ref.uri, MANIFEST), _open(folder / MANIFEST) as file:
        manifest = _parse(ref, file.read(_MANIFEST_LIMIT))
    try:
        found = set(_files_of(folder, reserved=()))
    except ArtifactRefused as error:
        raise ArtifactCorrupt(ref.uri, str(error), "regular files only", "something else") from error
    _same_names(ref, manifest, found)
    for entry in manifest.files:
        with _missing_file_errors(ref.uri, entry.path), _open(folder / entry.path) as file:
            _same_content(ref, entry, *_digest(file))
    return manifest


def safe_path(path: str) -> bool:
    """Whether `path` is a plain relative POSIX path that stays below its root on every file system."""
    parts = path.split("/")
    plain = path.isprintable() and "\\" not in path and ":" not in path
    return plain and not PurePosixPath(path).is_absolute() and not {"", ".", ".."} & set(parts)


def _files_of(folder: Path, reserved: tuple[str, ...] = (MANIFEST,)) -> list[str]:
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


def _parse(ref: ArtifactRef, raw: bytes) -> Manifest:
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


def _same_names(ref: ArtifactRef, manifest: Manifest, found: set[str]) -> None:
    expected = {entry.path for entry in manifest.files} | {MANIFEST}
    for path in sorted(expected - found):
        raise ArtifactCorrupt(ref.uri, path, "a file", "nothing")
    for path in sorted(found - expected):
        raise ArtifactCorrupt(ref.uri, path, "nothing (the manifest does not name it)", "a file")


def _same_content(ref: ArtifactRef, entry: ManifestEntry, digest: str, size: int) -> None:
    if (digest, size) != (entry.sha256, entry.size):
        found = f"sha256 {digest} of {size} bytes"
        raise ArtifactCorrupt(ref.uri, entry.path, f"sha256 {entry.sha256} of {entry.size} bytes", found)


@contextlib.contextmanager
def _missing_file_errors(uri: str, file: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        if not _store_is_there(uri):
            raise StoreAway(uri, "its folder sha256 is not there") from error
        if file == MANIFEST:
            raise ArtifactMissing(uri) from error
        raise ArtifactCorrupt(uri, file, "a file", "nothing") from error
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ArtifactCorrupt(uri, file, "a regular file", "a link") from error


def _store_is_there(uri: str) -> bool:
    """Whether the folder of all artifacts exists.

    Without it (empty mount point, removed bucket) no artifact counts as missing.
    """
    fs, root = fsspec.url_to_fs(uri)
    fs.invalidate_cache()
    return bool(fs.exists(str(PurePosixPath(str(root)).parent.parent)))


@contextlib.contextmanager
def _store_errors(uri: str) -> Iterator[None]:
    """Turn whatever a remote store's libraries raise into StoreAway, except errors that state what the store answered."""
    try:
        yield
    except (ArtifactCorrupt, StoreAway, FileNotFoundError):
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not foreign(type(error)):
            raise
        raise StoreAway(uri, f"it does not answer: {described(error)}") from error


@contextlib.contextmanager
def _reading(fs: fsspec.AbstractFileSystem, root: str, ref: ArtifactRef, entry: ManifestEntry) -> Iterator[BinaryIO]:
    with _store_errors(ref.uri), _missing_file_errors(ref.uri, entry.path), fs.open(f"{root}/{entry.path}", "rb") as file:
        yield file


def _open(path: Path) -> BinaryIO:
    """Open for reading; a link as the last part of the path is not followed."""
    return os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb")


def _digest(source: BinaryIO, target: BinaryIO | None = None) -> tuple[str, int]:
    """SHA-256 and size of all that `source` yields, which is also copied to `target` if one is given."""
    digest, size = hashlib.sha256(), 0
    while block := source.read(_BLOCK):
        digest.update(block)
        size += len(block)
        if target is not None:
            target.write(block)
    return digest.hexdigest(), size


def _copy(source: Path, target: Path, path: str) -> ManifestEntry:
    target.parent.mkdir(parents=True, exist_ok=True)
    with _open(source) as reading, target.open("xb") as writing:
        digest, size = _digest(reading, writing)
        flush(writing)
    return ManifestEntry(path=path, size=size, sha256=digest)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        flush(file)


def _move(temporary: Path, target: Path, ref: ArtifactRef) -> None:
    """Move a complete folder to `target`.

    A folder that is there already stays if it is intact and is replaced otherwise.
    """
    try:
        place(temporary, target)
    except OSError:
        if not target.exists():
            raise
        try:
            verify_folder(target, ref)
        except ArtifactCorrupt:
            broken = temporary.with_name(f"{temporary.name}.broken")
            place(target, broken)
            place(temporary, target)
            shutil.rmtree(broken, ignore_errors=True)
    sync(target.parent)
    sync(target.parent.parent)


def _remove_leftovers(scratch: Path) -> None:
    """Remove what killed processes left behind: files older than a day, since no write takes that long."""
    with contextlib.suppress(OSError):
        for path in scratch.iterdir():
            if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
