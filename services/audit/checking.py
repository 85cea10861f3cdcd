"""Verifies that an export is unchanged: every byte of every file is checked against its digest and the Merkle roots.

Reads each file once for its digest and once for its records, a few rows at a time. A root cannot tell which record differs,
so findings use the hash that is stored beside each record; the roots decide.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field

from schemas.base import Frozen
from services.audit import parquet
from services.audit.findings import ExportFindings
from services.audit.leaf import leaf_bytes
from services.audit.manifest import MANIFEST, PLAN, ExportedPartition, ExportFile, ExportManifest, Unusable
from services.audit.merkle import Tree, leaf_hash
from services.audit.parquet import ExportRow, FileDamaged
from services.chassis.kernel.records import named
from services.chassis.storage.digests import file_sha256


class PartitionVerdict(Frozen):
    """The result for one topic partition."""

    topic: str
    partition: int
    records: int = Field(description="Records read.")
    root: str = Field(description="The root that they lead to.")
    holds: bool = Field(description="Whether it is the root of the manifest, and the one that was pinned.")


def check(
    folder: Path, manifest: ExportManifest, findings: ExportFindings, pinned: Mapping[tuple[str, int], str]
) -> tuple[PartitionVerdict, ...]:
    """Read everything; each difference becomes a finding. Raises Unusable for a pinned root of a partition not exported."""
    if unknown := sorted(set(pinned) - {(item.topic, item.partition) for item in manifest.partitions}):
        raise Unusable(f"--root {unknown[0][0]}:{unknown[0][1]}: {folder} has no such partition; see its {MANIFEST}")
    _strangers(folder, manifest, findings)
    return tuple(_partition(folder, item, findings, pinned) for item in manifest.partitions)


def _strangers(folder: Path, manifest: ExportManifest, findings: ExportFindings) -> None:
    known = {folder / file.path for partition in manifest.partitions for file in partition.files}
    known |= {folder / MANIFEST, folder / PLAN}
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path not in known:
            findings.add(f"{path.relative_to(folder).as_posix()}: the file is not part of the export")


def _partition(
    folder: Path, exported: ExportedPartition, findings: ExportFindings, pinned: Mapping[tuple[str, int], str]
) -> PartitionVerdict:
    tree = Tree()
    expected, last = 0, exported.begin - 1
    for file in exported.files:
        if not _same_bytes(folder, file, findings):
            continue
        before = tree.size
        try:
            for row in parquet.read_rows(folder / file.path):
                leaf = leaf_hash(leaf_bytes(row.record))
                for text in _faults(row, leaf, exported, expected, last):
                    findings.add(text)
                tree.add(leaf)
                expected, last = row.number + 1, max(last, row.record.offset)
        except (FileDamaged, OSError) as error:
            findings.add(str(error))
        if tree.size - before != file.records:
            findings.add(f"{file.path}: it has {tree.size - before} records, the manifest says {file.records}")
    root = tree.root().hex()
    wanted = {"the manifest": exported.root}
    if pin := pinned.get((exported.topic, exported.partition)):
        wanted["--root"] = pin
    for who, promised in wanted.items():
        if root != promised:
            findings.add(f"{exported.name}: the records lead to root {root}, {who} says {promised}")
    if tree.size != exported.records:
        findings.add(f"{exported.name}: {tree.size} records, the manifest says {exported.records}")
    holds = all(root == promised for promised in wanted.values())
    return PartitionVerdict(topic=exported.topic, partition=exported.partition, records=tree.size, root=root, holds=holds)


def _same_bytes(folder: Path, file: ExportFile, findings: ExportFindings) -> bool:
    """Return whether the file exists and can be read; changed bytes become a finding, but the file is still read."""
    try:
        found = file_sha256(folder / file.path)
    except OSError as error:
        findings.add(f"{file.path}: the file is missing or cannot be read ({error.strerror})")
        return False
    if found != file.sha256:
        findings.add(f"{file.path}: its SHA-256 is {found}, the manifest says {file.sha256}")
    return True


def _faults(row: ExportRow, leaf: bytes, exported: ExportedPartition, expected: int, last: int) -> Iterator[str]:
    record = row.record
    where = named((record.topic, record.partition, record.offset))
    if leaf != row.leaf_sha256:
        yield f"{where}: the record was changed: its hash is not the stored one"
    if (record.topic, record.partition) != (exported.topic, exported.partition):
        yield f"{where}: the record does not belong to {exported.name}"
    if row.number != expected:
        yield (
            f"{where}: record {row.number} of its partition is in the place of record {expected}: records were removed, "
            "added or moved"
        )
    if record.offset <= last:
        yield f"{where}: it follows offset {last}: records were added or moved"
    if record.offset >= exported.end:
        yield f"{where}: the export ends at offset {exported.end}: the record was added"
    if row.envelope != ExportRow.of(record, row.number).envelope:
        yield f"{where}: the decoded columns differ from the record"
