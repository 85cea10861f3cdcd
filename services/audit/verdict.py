"""Verifies an export: whether it is complete and unchanged, contains a given record, and still agrees with the log."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from schemas.base import Frozen
from services.audit.checking import PartitionVerdict, check
from services.audit.comparing import compare_with_log
from services.audit.findings import SHOWN_FINDINGS, ExportFindings
from services.audit.inclusion_proof import Proof, leads_to_root, prove
from services.audit.manifest import MANIFEST, ExportManifest, read_manifest, read_plan
from services.audit.parquet import FileDamaged, require_pyarrow
from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel.records import RecordId, named
from services.chassis.storage.digests import file_sha256


class NoExport(LookupError):
    """The export does not exist, or it has no such record."""


class ExportVerdict(Frozen):
    """The result of `audit verify-export`."""

    complete: bool = Field(description="Whether the export is complete; a partial one proves nothing.")
    holds: bool = Field(description="Whether it is complete and has no findings.")
    manifest_sha256: str | None
    partitions: tuple[PartitionVerdict, ...] = ()
    findings: int = Field(default=0, description="Number of findings.")
    shown: tuple[str, ...] = Field(default=(), description=f"The first {SHOWN_FINDINGS} of them.")
    proof: Proof | None = None


def verify_export(
    folder: Path,
    *,
    record: RecordId | None = None,
    pinned: Mapping[tuple[str, int], str] | None = None,
    digest: str | None = None,
) -> ExportVerdict:
    """Read the whole export; each difference becomes a finding.

    Raises NoExport, NoPyarrow, and Unusable for an unreadable manifest or a pinned root of a partition not in it.
    """
    require_pyarrow()
    manifest = read_manifest(folder)
    if manifest is None:
        if read_plan(folder) is None:
            raise NoExport(f"{folder} contains no export; make one: neuroweaver audit export --to {folder}")
        partial = f"the export is partial because it was interrupted; continue it: neuroweaver audit export --to {folder}"
        return ExportVerdict(complete=False, holds=False, manifest_sha256=None, findings=1, shown=(partial,))
    findings = ExportFindings()
    found = file_sha256(folder / MANIFEST)
    if digest is not None and found != digest:
        findings.add(f"{MANIFEST}: its SHA-256 is {found}, --digest says {digest}")
    partitions = check(folder, manifest, findings, pinned or {})
    proof = None if record is None else _proof(folder, manifest, record, partitions, findings)
    return _verdict(found, partitions, findings, proof)


async def against_log(cluster: Cluster, folder: Path, verdict: ExportVerdict) -> ExportVerdict:
    """`verdict` with the differences from the log added. Raises Unusable, UnknownTopic and the broker's errors."""
    manifest = read_manifest(folder)
    if manifest is None:
        return verdict
    findings = ExportFindings(verdict.findings, list(verdict.shown))
    try:
        await compare_with_log(cluster, folder, manifest, findings)
    except (FileDamaged, OSError) as error:
        findings.add(f"not compared to the end: {error}")
    return _verdict(verdict.manifest_sha256, verdict.partitions, findings, verdict.proof)


def _verdict(
    digest: str | None, partitions: tuple[PartitionVerdict, ...], findings: ExportFindings, proof: Proof | None
) -> ExportVerdict:
    return ExportVerdict(
        complete=True,
        holds=not findings.count,
        manifest_sha256=digest,
        partitions=partitions,
        findings=findings.count,
        shown=tuple(findings.shown),
        proof=proof,
    )


def _proof(
    folder: Path,
    manifest: ExportManifest,
    record: RecordId,
    partitions: tuple[PartitionVerdict, ...],
    findings: ExportFindings,
) -> Proof | None:
    verdict = next((item for item in partitions if (item.topic, item.partition) == record[:2]), None)
    if verdict is None:
        raise NoExport(f"{named(record)}: the export has no such partition; see {folder / MANIFEST}")
    if not verdict.holds:
        findings.add(f"{named(record)}: there is no proof, because the records of its partition lead to another root")
        return None
    proof = prove(folder, manifest, record)
    if proof is None:
        raise NoExport(f"{named(record)}: the export has no record at this offset")
    if not leads_to_root(proof):
        findings.add(f"{named(record)}: its proof does not lead to the root, because a file changed while it was read")
        return None
    return proof
