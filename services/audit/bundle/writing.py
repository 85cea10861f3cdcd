"""Writes the bundle of a version: everything beside the target under another name, then one rename, so that a bundle is whole or absent."""

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from schemas.artifacts import ArtifactRef
from services.audit.bundle.collecting import Collected
from services.audit.bundle.documents import KEY, Derived, derive
from services.audit.bundle.dsse import public_pem, sign
from services.audit.bundle.faults import BundleRefused
from services.audit.bundle.limits import FILE_BYTES
from services.audit.bundle.record_lines import LINES
from services.audit.bundle.statement import STATEMENT
from services.chassis.storage.artifacts.files import write_file
from services.chassis.storage.durable import place
from services.chassis.storage.stores import writing

ARTIFACT = "artifact"
_LARGEST = 2**63

Fetch = Callable[[ArtifactRef], Path]
"""Returns a folder with the verified files of an artifact."""


class Written(NamedTuple):
    """A bundle that was written."""

    folder: Path
    records: int
    artifact: ArtifactRef
    with_artifact: bool


def write_bundle(collected: Collected, key: Ed25519PrivateKey, folder: Path, fetch: Fetch | None) -> Written:
    """Write and sign a bundle; without `fetch` it has no copy of the artifact. Raises BundleRefused, and the errors of `fetch` and disk."""
    refuse_existing(folder)
    if fetch:
        collected.require_files("--without-artifact writes the bundle without them")
    derived = _derived(collected)
    artifact = artifact_of(derived)
    source = fetch(artifact) if fetch else None
    beside = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    with writing(folder.parent, artifact.size if source else None):
        try:
            for name, content in derived.files.items():
                write_file(beside / name, content)
            write_file(beside / STATEMENT, sign(derived.statement, key))
            write_file(beside / KEY, public_pem(key.public_key()))
            if source is not None:
                shutil.copytree(source, beside / ARTIFACT)
            place(beside, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return Written(folder, len(collected.records), artifact, source is not None)


def refuse_existing(folder: Path) -> None:
    """Raise BundleRefused if something is there already."""
    if folder.exists() or folder.is_symlink():
        raise BundleRefused(f"{folder} exists already; name a new folder with --out")


def _derived(collected: Collected) -> Derived:
    if len(collected.records) > LINES:
        raise BundleRefused(f"the job has {len(collected.records)} records, and a bundle has {LINES} at the most")
    try:
        derived = derive(collected.view, collected.records)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        what = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
        raise BundleRefused(
            f"the records of {collected.view.model}@{collected.view.version} cannot be stated: {what}"
        ) from None
    for name, content in derived.files.items():
        if len(content) > FILE_BYTES:
            raise BundleRefused(
                f"{name} would have {len(content)} bytes, and {FILE_BYTES} are read at the most; the job has too many records"
            )
    return derived


def artifact_of(derived: Derived) -> ArtifactRef:
    """Return the reference of the version's artifact, as its registration says. Raises BundleRefused."""
    try:
        found = ArtifactRef.model_validate(derived.sources.registered.at("artifact").value)
    except ValidationError:
        raise BundleRefused("the registration of the version names no artifact") from None
    if found.size > _LARGEST:
        raise BundleRefused("the registration of the version says that its artifact has more than 2**63 bytes")
    return found
