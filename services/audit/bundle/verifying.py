"""Verifies a bundle offline: the proofs of its records, what must follow from them, the artifact's files, and who signed.

Each check goes on as far as it can without what an earlier one refused, and each difference names the file, what was expected and what was
found.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field, ValidationError

from schemas.artifacts import ArtifactRef
from schemas.base import Frozen
from services.audit.bundle import technical_file
from services.audit.bundle.bom import BOM
from services.audit.bundle.chain import chain_of
from services.audit.bundle.compared import first_difference
from services.audit.bundle.documents import CITATIONS, KEY, Derived, derive
from services.audit.bundle.examination import SHOWN, Check, Examination
from services.audit.bundle.faults import BundleRefused, Difference, Differs
from services.audit.bundle.log_view import LOG, LogView
from services.audit.bundle.model_card import CARD
from services.audit.bundle.parsing import envelope_in, fault_of, records_in, require_equal, view_in
from services.audit.bundle.reading import content, entries
from services.audit.bundle.record_lines import RECORDS, ProvenRecord
from services.audit.bundle.signer import Signer, signer_of
from services.audit.bundle.statement import STATEMENT
from services.audit.bundle.writing import ARTIFACT, artifact_of
from services.chassis.storage.artifacts.errors import MANIFEST, ArtifactCorrupt, ArtifactRefused, missing_file_errors
from services.chassis.storage.artifacts.files import files_of, open_file, verify_folder
from services.chassis.storage.artifacts.manifest import MANIFEST_LIMIT, parse
from services.chassis.storage.stores import amount

DOCUMENTS = (CITATIONS, BOM, CARD, technical_file.JSON, technical_file.TEXT)
_NAMED = 3
_FILES = (STATEMENT, LOG, RECORDS, *DOCUMENTS)


class NoBundle(LookupError):
    """A folder has no bundle."""


class BundleVerdict(Frozen):
    """The result of `evidence verify`."""

    about: str | None = Field(default=None, description="The version, `name@version`.")
    holds: bool = Field(description="Whether no check found a difference.")
    signer: Literal["given", "bundle"] | None = Field(
        description="Whose key the signature is of. given: the key of --key; bundle: the bundle's own, which does not prove who signed; "
        "null: of neither."
    )
    key_sha256: str | None = Field(description="SHA-256 of that key.")
    artifact_sha256: str | None = Field(description="SHA-256 of the manifest of the artifact, as registered.")
    checks: tuple[Check, ...]
    count: int = Field(description="Number of differences.")
    differences: tuple[Difference, ...] = Field(description=f"The first {SHOWN} of them.")


def verify_bundle(folder: Path, key: Ed25519PublicKey | None = None) -> BundleVerdict:
    """Verify a bundle with a key that the reader trusts, or else with its own. Raises NoBundle."""
    names, found = _names(folder), Examination()
    found.compare("files", _files(names), f"{len(names)}, as expected")
    view = found.read("log", lambda: view_in(folder), lambda seen: f"{len(seen.partitions)} partitions with their roots")
    records = found.read("records", lambda: records_in(folder), lambda read: f"{len(read)}, byte for byte")
    envelope = found.read("envelope", lambda: envelope_in(folder), lambda _: "a signed statement of in-toto")
    derived = None
    if view and records:
        found.compare("proofs", _proofs(view, records), "each record leads to the root of its partition")
        derived = found.read("version", lambda: _derived(view, records), lambda _: f"{view.model}@{view.version}")
    if view and records and derived:
        if envelope:
            found.compare("statement", _payload(derived, envelope[1]), "what the records say, byte for byte")
        found.compare("documents", _documents(folder, derived), "what the records say, byte for byte")
        _artifact(found, folder, names, derived)
        _chain(found, f"{view.model}@{view.version}", records, derived)
    signer = signer_of(found, envelope[0], folder, names, key) if envelope else Signer()
    return BundleVerdict(
        about=f"{view.model}@{view.version}" if view else None,
        holds=not found.count,
        signer=signer.whose,
        key_sha256=signer.key_sha256,
        artifact_sha256=artifact_of(derived).sha256 if derived else None,
        checks=tuple(found.checks),
        count=found.count,
        differences=tuple(found.differences),
    )


def _names(folder: Path) -> dict[str, str]:
    try:
        names = entries(folder)
    except OSError as error:
        raise NoBundle(f"{folder} cannot be read ({error.strerror}); name the folder of a bundle") from None
    if STATEMENT not in names:
        raise NoBundle(f"{folder} has no {STATEMENT}, so it is no bundle; `neuroweaver evidence NAME@VERSION` makes one")
    return names


def _files(names: Mapping[str, str]) -> Iterator[Difference]:
    expected = {**dict.fromkeys(_FILES, "file"), KEY: "file", ARTIFACT: "folder"}
    for name in _FILES:
        if name not in names:
            yield Difference(name, "a file", "nothing")
    for name, kind in sorted(names.items()):
        if name not in expected:
            yield Difference(ascii(name)[1:-1], "nothing", kind)
        elif kind != expected[name]:
            yield Difference(name, f"a {expected[name]}", kind)


def _proofs(view: LogView, records: Sequence[ProvenRecord]) -> Iterator[Difference]:
    seen = {(partition.topic, partition.partition): partition for partition in view.partitions}
    used = set()
    for one in records:
        partition = seen.get((one.record.topic, one.record.partition))
        if partition is None:
            yield Difference(f"{RECORDS} {one.place}", f"a partition of {LOG}", "another one")
            continue
        used.add(partition.name)
        root = one.root(partition.records)
        if root != partition.root:
            expected = f"a proof of leaf {one.leaf} of {partition.records} for root {partition.root}"
            yield Difference(f"{RECORDS} {one.place}", expected, f"root {root}" if root else "a path of another length")
        if not partition.begin <= one.record.offset < partition.end:
            yield Difference(
                f"{RECORDS} {one.place}", f"an offset from {partition.begin} to {partition.end - 1}", str(one.record.offset)
            )
    for name in sorted({partition.name for partition in view.partitions} - used):
        yield Difference(f"{LOG} {name}", "a partition with a record of the bundle", "one without")


def _derived(view: LogView, records: Sequence[ProvenRecord]) -> Derived:
    try:
        derived = derive(view, records)
        artifact_of(derived)
    except BundleRefused as error:
        raise Differs(RECORDS, f"the records of {view.model}@{view.version}", str(error)) from None
    except ValidationError as error:
        raise Differs(RECORDS, "records that a statement can be made of", fault_of(error)) from None
    return derived


def _payload(derived: Derived, body: bytes) -> Iterator[Difference]:
    try:
        require_equal(f"{STATEMENT} payload", derived.statement, body)
    except Differs as error:
        yield error.difference


def _documents(folder: Path, derived: Derived) -> Iterator[Difference]:
    for name in DOCUMENTS:
        try:
            differs = first_difference(name, derived.files[name], content(folder, name))
        except Differs as error:
            differs = error.difference
        if differs is not None:
            yield differs


def _artifact(found: Examination, folder: Path, names: Mapping[str, str], derived: Derived) -> None:
    ref = artifact_of(derived)
    if ARTIFACT not in names:
        found.leave_open("artifact", "not in the bundle: compare its files by yourself")
    elif names[ARTIFACT] == "folder":
        found.compare("artifact", _artifact_differences(folder / ARTIFACT, derived), f"{amount(ref.size)}, as registered")


def _artifact_differences(folder: Path, derived: Derived) -> Iterator[Difference]:
    ref = artifact_of(derived)
    try:
        files_of(folder, reserved=())  # refuses links and pipes before anything is opened
        sizes = list(_sizes(folder, ref))
        if not sizes:
            verify_folder(folder, ref)
        yield from sizes
    except ArtifactCorrupt as error:
        yield Difference(f"{ARTIFACT}/{error.file}", error.expected, error.found)
    except ArtifactRefused as error:
        yield Difference(ARTIFACT, "regular files with plain names", str(error))
    except OSError as error:
        yield Difference(ARTIFACT, "files that can be read", str(error))


def _sizes(folder: Path, ref: ArtifactRef) -> Iterator[Difference]:
    """Yield the files of other sizes than the manifest says, so that a file that seems huge is not read."""
    with missing_file_errors(ref.uri, MANIFEST), open_file(folder / MANIFEST) as file:
        manifest = parse(ref, file.read(MANIFEST_LIMIT))
    for entry in manifest.files:
        path = folder / entry.path
        if path.is_file() and (size := path.stat().st_size) != entry.size:
            yield Difference(f"{ARTIFACT}/{entry.path}", f"{entry.size} bytes", f"{size} bytes")


def _chain(found: Examination, about: str, records: Sequence[ProvenRecord], derived: Derived) -> None:
    chain = chain_of(records, str(derived.sources.registered.at("lineage", "job_id").value), about)
    if chain.missing:
        found.leave_open("chain", f"not complete, missing are: {'; '.join(chain.missing[:_NAMED])}")
    else:
        found.compare("chain", (), f"{chain.events} events, from JobRequested to ModelRegistered")
