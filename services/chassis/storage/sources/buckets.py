"""Reads object stores through fsspec: the operator sets endpoint and credentials, the job names the path."""

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

import fsspec

from services.chassis.storage.artifacts.manifest import safe_path
from services.chassis.storage.durable import mark_used, place_first
from services.chassis.storage.sources.allowed import CREDENTIALS, AllowedSources, Refusal
from services.chassis.storage.sources.download import too_large, too_slow
from services.chassis.storage.sources.reaching import SourceRefused
from services.chassis.storage.stores import writing

FILES_AT_MOST = 20_000
TOO_MANY = Refusal(f"it contains more than {FILES_AT_MOST} files", "name only the folder of the model or data")
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError")
"""Error names of botocore, which is installed only where s3:// is used."""
_BLOCK = 1024 * 1024


def from_bucket(url: str, scheme: str, cache: Path, allowed: AllowedSources) -> Path:
    """Return a copy below `cache`. Raises SourceRefused, and the storage's own errors where a retry may help."""
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise SourceRefused(CREDENTIALS)
    try:
        fs, root = fsspec.url_to_fs(url)
    except ImportError as error:
        remedy = f'install the package for {scheme}:// (for s3: pip install "neuroweaver[s3]")'
        raise SourceRefused(Refusal(f"{scheme}:// needs a package that is missing", remedy)) from error
    except ValueError as error:
        raise SourceRefused(Refusal(f"no package serves {scheme}://", "use a path, s3:// or a hub id")) from error
    return _download(fs, str(root).rstrip("/"), cache, allowed)


def _download(fs: fsspec.AbstractFileSystem, root: str, cache: Path, allowed: AllowedSources) -> Path:
    """Copy a remote file or folder into the cache, keyed by the digest of its names, sizes and versions."""
    ends_at = time.monotonic() + allowed.download_seconds
    fs.invalidate_cache()
    try:
        details = fs.find(root, detail=True)
    except FileNotFoundError:
        details = {}
    except Exception as error:
        if not isinstance(error, PermissionError) and type(error).__name__ not in _NO_CREDENTIALS:
            raise
        remedy = "give this service credentials that may read it, or correct the name"
        raise SourceRefused(Refusal(f"access denied ({type(error).__name__})", remedy)) from error
    if not details:
        raise SourceRefused(
            Refusal("it contains no files", "check bucket and path; a folder must contain at least one file")
        )
    single = set(details) == {root}
    names = {path: path.rpartition("/")[2] if single else path.removeprefix(f"{root}/") for path in details}
    if odd := sum(not safe_path(name) for name in names.values()):
        what = f"{odd} of its {len(names)} files have names that no local file can have"
        raise SourceRefused(Refusal(what, "rename them: no .., no backslash, no colon, printable"))
    size = _size(details.values())
    if len(details) > FILES_AT_MOST:
        raise SourceRefused(TOO_MANY)
    if size is not None and size > allowed.download_bytes:
        raise SourceRefused(too_large(size, allowed))
    version = [[names[path], _version(info)] for path, info in sorted(details.items())]
    digest = hashlib.sha256(json.dumps([root, version]).encode()).hexdigest()
    target = cache / "references" / digest
    if not target.exists():
        temporary = cache / "tmp" / uuid.uuid4().hex
        with writing(cache, size):
            try:
                for path, name in names.items():
                    local = temporary / name
                    local.parent.mkdir(parents=True, exist_ok=True)
                    _copy(fs, path, local, allowed, ends_at)
                place_first(temporary, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    mark_used(target)
    return target / names[root] if single else target


def _copy(fs: fsspec.AbstractFileSystem, path: str, local: Path, allowed: AllowedSources, ends_at: float) -> None:
    """Copy one file block by block and count its bytes, since the size that a store reports may be wrong."""
    written = 0
    with fs.open(path, "rb") as source, local.open("xb") as target:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > allowed.download_bytes:
                raise SourceRefused(too_large(None, allowed))
            if time.monotonic() > ends_at:
                raise SourceRefused(too_slow(allowed))
            target.write(block)


def _size(files: Iterable[dict[str, object]]) -> int | None:
    """Total bytes; None if the storage does not report the size of every file."""
    sizes = [info.get("size") for info in files]
    known = [size for size in sizes if isinstance(size, int)]
    return sum(known) if len(known) == len(sizes) else None


def _version(info: dict[str, object]) -> list[str]:
    known = ("size", "ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")
    return [f"{name}={info[name]}" for name in known if info.get(name) is not None]
