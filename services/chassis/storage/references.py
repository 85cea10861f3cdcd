"""Resolves a job's reference to a model or data set into a local path, or raises a fault that a person can correct.

A reference is a local path or `file://`; a URL of a scheme that jobs may name, such as `s3://bucket/folder`; or an id on
the Hugging Face hub, `name` or `owner/name`, with an optional `@revision`. Downloads are complete or absent, and bounded in
size and time. References come from jobs: only what `AllowedSources` permits is read, and no message repeats what was found there.
"""

import contextlib
import hashlib
import json
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from schemas.artifacts import Manifest
from services.chassis.storage.artifacts.manifest import canonical
from services.chassis.storage.digests import entry_of
from services.chassis.storage.sources.allowed import HTTP_PORTS, AllowedSources, Refusal, path_refusal, scheme_refusal
from services.chassis.storage.sources.buckets import FILES_AT_MOST, TOO_MANY, from_bucket
from services.chassis.storage.sources.download import download
from services.chassis.storage.sources.hub import Repository, from_hub
from services.chassis.storage.sources.models import model_refusal
from services.chassis.storage.sources.reaching import SourceRefused
from services.chassis.storage.stores import writing

_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_HUB_ID = re.compile(r"^(?P<id>[\w-][\w.-]*(?:/[\w-][\w.-]*)?)(?:@(?P<revision>[\w./-]+))?$")
_SETTLED_NS = 2_000_000_000
_IRREGULAR = Refusal("it is neither a file nor a folder", "name a regular file or a folder of such files")
_UNREADABLE = Refusal("the path cannot be read: permission denied", "give a path that this service can read")
_ABSENT = Refusal("no such file or folder", "give a path that this service can read, a URL or a hub id")


class ReferenceFault(Exception):
    """A reference names nothing, or something that jobs may not read; its author can correct it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


def resolve(reference: str, cache: Path, allowed: AllowedSources, repository: Repository = "model") -> Path:
    """Return the local file or folder for `reference`; downloads are stored under `cache` and must not be written to.

    Raises ReferenceFault, and SourceAway and the storage's own errors where a retry may help.
    """
    try:
        return _resolve(reference, cache, allowed, repository)
    except SourceRefused as refused:
        raise ReferenceFault(*refused.refusal) from None


def resolve_folder(reference: str, cache: Path, allowed: AllowedSources) -> Path:
    """Return the folder for `reference`, of which every file is one that jobs may name. Raises ReferenceFault."""
    return _checked_folder(resolve(reference, cache, allowed), cache, allowed)


def resolve_model(reference: str, cache: Path, allowed: AllowedSources) -> Path:
    """Return the folder of the base model for `reference`, checked so that loading it reads no other files and runs no
    code."""
    return _checked_model(resolve(reference, cache, allowed), cache, allowed)


def resolve_local_model(path: str, cache: Path, allowed: AllowedSources) -> Path:
    """Return the folder of a base model of this machine as `resolve_model` does; nothing is fetched from elsewhere."""
    try:
        return _checked_model(_local(path, allowed), cache, allowed)
    except SourceRefused as refused:
        raise ReferenceFault(*refused.refusal) from None


def _checked_folder(path: Path, cache: Path, allowed: AllowedSources) -> Path:
    if not path.is_dir():
        raise ReferenceFault("this is a file", "name the folder that contains config.json, weights and tokenizer")
    require_inside(path, cache, allowed)
    return path


def _checked_model(path: Path, cache: Path, allowed: AllowedSources) -> Path:
    _checked_folder(path, cache, allowed)
    if refusal := model_refusal(path):
        raise ReferenceFault(*refusal)
    return path


def _resolve(reference: str, cache: Path, allowed: AllowedSources, repository: Repository) -> Path:
    if not reference.strip():
        raise ReferenceFault("no such file or folder: the reference is empty", "give a path, a URL or a hub id")
    url = _URL.match(reference)
    if "::" in reference and (url is None or url[1].lower() not in HTTP_PORTS):  # [::1] is a host
        raise ReferenceFault("chained URLs are not supported", "give the URL of the file or folder itself")
    if url:
        return _from_url(reference, url[1].lower(), cache, allowed)
    hub = None if reference.startswith((".", "/", "~")) else _HUB_ID.match(reference)
    try:
        return _local(reference, allowed)
    except SourceRefused as refused:
        if hub is None or refused.refusal in (_IRREGULAR, _UNREADABLE):
            raise
        if not allowed.hub:
            remedy = "use a path, or have the operator set NEUROWEAVER_SOURCES_HUB=true"
            raise ReferenceFault("no such file or folder, and jobs may not name ids of the hub", remedy) from refused
    return from_hub(hub["id"], hub["revision"], cache, allowed, repository)


def _local(path: str, allowed: AllowedSources) -> Path:
    """The real path of a file or folder.

    Raises ReferenceFault, worded alike for closed folders and for what is missing in them.
    """
    try:
        real = Path(path).expanduser().resolve()
        if refusal := path_refusal(real, allowed):
            raise SourceRefused(refusal)
        mode = real.stat().st_mode
        readable = os.access(real, os.R_OK | os.X_OK if stat.S_ISDIR(mode) else os.R_OK)
    except (FileNotFoundError, NotADirectoryError):
        raise SourceRefused(_ABSENT) from None
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, a NUL, an unknown home
        why = getattr(error, "strerror", None) or type(error).__name__
        remedy = "give a path that this service can read"
        raise SourceRefused(Refusal(f"no such file or folder: the path cannot be resolved ({why})", remedy)) from None
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise SourceRefused(_IRREGULAR)
    if not readable:
        raise SourceRefused(_UNREADABLE)
    return real


def require_inside(path: Path, cache: Path, allowed: AllowedSources) -> None:
    """Check that a file, or every file of a folder, links only to files that jobs may name. Raises ReferenceFault.

    Files in `cache` were put there by the services. Pipes and devices are refused.
    """
    own, outside, special = cache.resolve(), 0, 0
    for count, entry in enumerate(_entries(path)):
        if count >= FILES_AT_MOST:
            raise ReferenceFault(*TOO_MANY)
        real = entry.resolve()
        if not real.is_relative_to(own) and path_refusal(real, allowed):
            outside += 1
        elif real.exists() and not real.is_file() and not real.is_dir():
            special += 1
    if outside:
        what = f"{outside} of its files are links that lead out of the folders that jobs may name"
        remedy = "replace them by files, or have the operator add their targets to NEUROWEAVER_SOURCES_FOLDERS"
        raise ReferenceFault(what, remedy)
    if special:
        raise ReferenceFault(f"{special} of its files are pipes or devices", "replace them by regular files")


def _entries(path: Path) -> Iterator[Path]:
    """The path itself and everything below it that is not hidden."""
    yield path
    for directory, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(directory) / name for name in (*folders, *sorted(files)) if not name.startswith("."))


def _from_url(url: str, scheme: str, cache: Path, allowed: AllowedSources) -> Path:
    if scheme in ("file", "local"):
        return _from_file_url(url, allowed)
    if refusal := scheme_refusal(scheme, allowed):
        raise SourceRefused(refusal)
    if scheme in HTTP_PORTS:
        return download(url, cache, allowed)
    return from_bucket(url, scheme, cache, allowed)


def _from_file_url(url: str, allowed: AllowedSources) -> Path:
    host, _, path = url.partition("://")[2].partition("/")
    if host not in ("", "localhost"):
        raise ReferenceFault("a file:// URL cannot name another host", "write file:///path")
    return _local(unquote(f"/{path}"), allowed)


def folder_digest(path: Path, cache: Path | None = None) -> str:
    """SHA-256 of the canonical manifest of a folder's files (or of one file), hidden ones left out, links followed.

    With `cache`, a folder that has not changed is not read again: names, sizes, inodes and change times are compared. Files
    that changed less than two seconds ago are not remembered, since their next change might not show in the time.
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
    manifest = Manifest(files=tuple(entry_of(file, name) for name, file in files))
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
