"""Why: models and data sets come by reference; here a reference becomes a local path, or a fault that a person can act on.

Understood: a local path or `file://`; any URL that fsspec knows, such as `s3://bucket/folder`; an id on the Hugging Face
hub, `name` or `owner/name`, with `@revision` where one is meant. Downloads are complete or absent, and are made once.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import fsspec
from fsspec.implementations.local import LocalFileSystem

from schemas.artifacts import Manifest, ManifestEntry
from services.chassis.artifacts import canonical, safe_path
from services.chassis.durable import mark_used, place
from services.chassis.storage import writing

Repository = Literal["model", "dataset"]

_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_HUB_ID = re.compile(r"^(?P<id>[\w-][\w.-]*(?:/[\w-][\w.-]*)?)(?:@(?P<revision>[\w./-]+))?$")
_CODE = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.msgpack", "*.h5", "*.onnx", "*.py")
"""Not fetched from the hub: pickles and code can run what they like, and no other format of the weights is needed."""
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError")
"""botocore's names for them; it is there only where s3:// is used."""
_BLOCK = 1024 * 1024
_SETTLED_NS = 2_000_000_000


class ReferenceFault(Exception):
    """A reference leads nowhere; the person who wrote it can put it right."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


def resolve(reference: str, cache: Path, repository: Repository = "model") -> Path:
    """The local file or folder that `reference` means; what must be downloaded lies under `cache`, not to be written to.

    Raises ReferenceFault, and the storage's own errors where trying again may help.
    """
    if not reference.strip():
        raise ReferenceFault("no such file or folder: the reference is empty", "give a path, a URL or a hub id")
    url = _URL.match(reference)
    if url is None:
        try:
            local = Path(reference).expanduser().resolve()
            local.stat()
            if not os.access(local, os.R_OK | os.X_OK if local.is_dir() else os.R_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except FileNotFoundError:
            pass
        except (OSError, RuntimeError, ValueError) as error:
            raise ReferenceFault(f"the path cannot be read: {error}", "give a path that this service can read") from error
        else:
            return local
        hub = _HUB_ID.match(reference)
        if hub is None or reference.startswith((".", "/", "~")):
            raise ReferenceFault("no such file or folder", "give a path that this service can read, a URL or a hub id")
        return _from_hub(hub["id"], hub["revision"], cache, repository)
    if "::" in reference:
        raise ReferenceFault("chained URLs are not supported", "give the URL of the file or folder itself")
    return _from_url(reference, url[1], cache)


def _from_url(url: str, scheme: str, cache: Path) -> Path:
    try:
        fs, root = fsspec.url_to_fs(url)
    except ImportError as error:
        remedy = f'install what serves {scheme}:// (for s3: pip install "neuroweaver[s3]")'
        raise ReferenceFault(f"{scheme}:// needs a package that is missing: {error}", remedy) from error
    except ValueError as error:
        raise ReferenceFault(f"unknown scheme {scheme}://", "use a path, file://, s3:// or a hub id") from error
    if isinstance(fs, LocalFileSystem):
        if not Path(root).exists():
            raise ReferenceFault("no such file or folder", "give a path that this service can read")
        return Path(root)
    return _download(fs, str(root).rstrip("/"), cache)


def _download(fs: fsspec.AbstractFileSystem, root: str, cache: Path) -> Path:
    """Copy a remote file or folder into the cache, under the digest of its names, sizes and versions."""
    fs.invalidate_cache()
    try:
        details = fs.find(root, detail=True)
    except FileNotFoundError:
        details = {}
    except Exception as error:
        if not isinstance(error, PermissionError) and type(error).__name__ not in _NO_CREDENTIALS:
            raise
        remedy = "give this service credentials that may read it, or correct the name"
        raise ReferenceFault(f"access denied: {error}", remedy) from error
    if not details:
        raise ReferenceFault("nothing is there", "check bucket and path; a folder must hold at least one file")
    single = set(details) == {root}
    names = {path: path.rpartition("/")[2] if single else path.removeprefix(f"{root}/") for path in details}
    for name in names.values():
        if not safe_path(name):
            raise ReferenceFault(f"the name {name!r} cannot be a local file", "rename it")
    version = [[names[path], _version(info)] for path, info in sorted(details.items())]
    digest = hashlib.sha256(json.dumps([root, version]).encode()).hexdigest()
    target = cache / "references" / digest
    if not target.exists():
        temporary = cache / "tmp" / uuid.uuid4().hex
        with writing(cache, _size(details.values())):
            try:
                for path, name in names.items():
                    local = temporary / name
                    local.parent.mkdir(parents=True, exist_ok=True)
                    fs.get_file(path, str(local))
                _rename(temporary, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    mark_used(target)
    return target / names[root] if single else target


def _size(files: Iterable[dict[str, object]]) -> int | None:
    """Bytes in all; None where the storage does not say it of each."""
    sizes = [info.get("size") for info in files]
    known = [size for size in sizes if isinstance(size, int)]
    return sum(known) if len(known) == len(sizes) else None


def _version(info: dict[str, object]) -> list[str]:
    known = ("size", "ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")
    return [f"{name}={info[name]}" for name in known if info.get(name) is not None]


def _rename(temporary: Path, target: Path) -> None:
    """Put a complete download in its place, unless somebody else was faster."""
    try:
        place(temporary, target)
    except OSError:
        if not target.exists():
            raise


def _from_hub(repo: str, revision: str | None, cache: Path, repository: Repository) -> Path:
    what = f"{repository} {repo} on the Hugging Face hub"
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise ReferenceFault(
            f"no such file or folder, and hub ids need the package huggingface_hub ({error})",
            "correct the path, or install huggingface_hub",
        ) from error
    try:
        with writing(cache / "hub"):
            folder = snapshot_download(
                repo,
                repo_type=repository,
                revision=revision,
                cache_dir=cache / "hub",
                ignore_patterns=list(_CODE) if repository == "model" else ["*.py"],
            )
    except errors.GatedRepoError as error:
        raise ReferenceFault(f"{what} is gated", "accept its licence there and set HF_TOKEN for this service") from error
    except errors.RepositoryNotFoundError as error:
        raise ReferenceFault(
            f"no such file or folder here, and no {what}",
            "correct the path or the id; for a private repository set HF_TOKEN for this service",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ReferenceFault(f"{what} has no revision {revision}", "name a branch, tag or commit that exists") from error
    except errors.HFValidationError as error:
        raise ReferenceFault(
            f"no such file or folder, and no hub id: {error}", "give a path, a URL or owner/name"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise ReferenceFault(
            f"no such file or folder here, and the hub cannot be reached to look for {what}",
            "give a path that this service can read, or let it reach the hub (HF_ENDPOINT, HTTPS_PROXY, HF_HUB_OFFLINE=0)",
        ) from error
    mark_used(Path(folder).parent.parent)
    return Path(folder)


def folder_digest(path: Path, cache: Path | None = None) -> str:
    """SHA-256 of the canonical manifest of a folder's files (or of one file), hidden ones left out, links followed.

    With `cache` a folder that has not changed since is not read again: names, sizes, inodes and times of change are
    compared, and nothing is remembered of files that changed less than two seconds ago, whose next change might not show.
    """
    files = _visible_files(path)
    state = [[name, *_fingerprint(file)] for name, file in files]
    remembered = cache / "digests" / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()}.json" if cache else None
    if remembered is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(remembered.read_text())
            if known["state"] == state:
                return str(known["digest"])
    began_ns = time.time_ns()
    manifest = Manifest(files=tuple(_entry(name, file) for name, file in files))
    digest = hashlib.sha256(canonical(manifest)).hexdigest()
    settled = all(began_ns - file.stat().st_ctime_ns > _SETTLED_NS for _, file in files)
    if remembered is not None and settled and state == [[name, *_fingerprint(file)] for name, file in files]:
        _remember(remembered, json.dumps({"state": state, "digest": digest}))
    return digest


def _remember(file: Path, text: str) -> None:
    temporary = file.with_suffix(f".{uuid.uuid4().hex}")
    with writing(file.parent, len(text)):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)


def _visible_files(path: Path) -> list[tuple[str, Path]]:
    if path.is_file():
        return [(path.name, path)]
    found = ((file.relative_to(path), file) for file in path.rglob("*") if file.is_file())
    return sorted((name.as_posix(), file) for name, file in found if not any(part.startswith(".") for part in name.parts))


def _fingerprint(file: Path) -> list[int]:
    known = file.stat()
    return [known.st_size, known.st_mtime_ns, known.st_ctime_ns, known.st_ino]


def _entry(name: str, file: Path) -> ManifestEntry:
    digest = hashlib.sha256()
    with file.open("rb") as reading:
        while block := reading.read(_BLOCK):
            digest.update(block)
    return ManifestEntry(path=name, size=file.stat().st_size, sha256=digest.hexdigest())
