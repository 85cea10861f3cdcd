"""Why: an export is what it was when it was made, or this says what is not: every byte of every file leads to the roots.

Reads each file once for its digest and once for its records, a few rows at a time. What a root alone cannot say (which record)
is said from the notes beside each record; the roots decide.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from schemas.base import Frozen
from services.chassis import log
from services.cli.audit import parquet
from services.cli.audit.export import file_sha256, raw
from services.cli.audit.leaf import leaf_bytes
from services.cli.audit.manifest import MANIFEST, PLAN, ExportedPartition, ExportFile, Manifest, Unusable
from services.cli.audit.merkle import Sibling, Tree, audit_path, leaf_hash, root_of_path
from services.cli.audit.parquet import FileDamaged, Row

SHOWN_FINDINGS = 100


class Place(NamedTuple):
    """Where a record lies in the log."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}"


class Proof(Frozen):
    """That a record is in the export, for anybody who knows the root: hash `leaf`, then go up the path."""

    topic: str
    partition: int
    offset: int
    leaf_index: int = Field(description="Place among the partition's records, from 0.")
    tree_size: int = Field(description="How many records the partition has in the export.")
    leaf: str = Field(description="The record as its leaf is encoded, Base64.")
    leaf_sha256: str = Field(description="SHA-256 of a zero byte and the leaf.")
    path: tuple[Sibling, ...] = Field(description="From the leaf to the root; a node is SHA-256 of a one byte, left, right.")
    root: str


class PartitionVerdict(Frozen):
    """What was found of one topic partition."""

    topic: str
    partition: int
    records: int = Field(description="Records read.")
    root: str = Field(description="The root that they lead to.")
    holds: bool = Field(description="Whether it is the root of the manifest, and the one that was pinned.")


class ExportVerdict(Frozen):
    """What `audit verify-export` found."""

    complete: bool = Field(description="Whether the export was ended; a partial one proves nothing.")
    holds: bool = Field(description="Whether it is complete and nothing was found.")
    manifest_sha256: str | None
    partitions: tuple[PartitionVerdict, ...] = ()
    findings: int = Field(default=0, description="How many places are not as they were exported.")
    shown: tuple[str, ...] = Field(default=(), description=f"The first {SHOWN_FINDINGS} of them.")
    proof: Proof | None = None


@dataclass
class Findings:
    """All are counted, the first are kept."""

    count: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """One more."""
        self.count += 1
        if len(self.shown) < SHOWN_FINDINGS:
            self.shown.append(text)


def manifest_sha256(folder: Path) -> str | None:
    """What `export` printed, where nobody changed the manifest; None for an export without one."""
    path = folder / MANIFEST
    return file_sha256(path) if path.exists() else None


def check(
    folder: Path, manifest: Manifest, findings: Findings, pinned: Mapping[tuple[str, int], str]
) -> tuple[PartitionVerdict, ...]:
    """Read everything. Every difference becomes a finding. Raises Unusable for a pinned root of nothing in the export."""
    if unknown := sorted(set(pinned) - {(item.topic, item.partition) for item in manifest.partitions}):
        topic, number = unknown[0]
        raise Unusable(f"--root {topic}:{number}: {folder} has no such partition; see its {MANIFEST}")
    _strangers(folder, manifest, findings)
    return tuple(_partition(folder, item, findings, pinned) for item in manifest.partitions)


def _strangers(folder: Path, manifest: Manifest, findings: Findings) -> None:
    known = {folder / file.path for partition in manifest.partitions for file in partition.files}
    known |= {folder / MANIFEST, folder / PLAN}
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path not in known:
            findings.add(f"{path.relative_to(folder).as_posix()}: the file is no part of the export")


def _partition(
    folder: Path, exported: ExportedPartition, findings: Findings, pinned: Mapping[tuple[str, int], str]
) -> PartitionVerdict:
    tree = Tree()
    last = exported.begin - 1
    for file in exported.files:
        if not _same_bytes(folder, file, findings):
            continue
        before = tree.size
        try:
            for row in parquet.read_rows(folder / file.path):
                leaf = leaf_hash(leaf_bytes(row.record))
                for text in _faults(row, leaf, exported, tree.size, last):
                    findings.add(text)
                tree.add(leaf)
                last = max(last, row.record.offset)
        except (FileDamaged, OSError) as error:
            findings.add(str(error))
        if tree.size - before != file.records:
            findings.add(f"{file.path}: it holds {tree.size - before} records, the manifest says {file.records}")
    root = tree.root().hex()
    wanted = {"the manifest": exported.root}
    if pin := pinned.get((exported.topic, exported.partition)):
        wanted["--root"] = pin
    for who, expected in wanted.items():
        if root != expected:
            findings.add(f"{exported.name}: the records lead to root {root}, {who} says {expected}")
    if tree.size != exported.records:
        findings.add(f"{exported.name}: {tree.size} records, the manifest says {exported.records}")
    holds = all(root == expected for expected in wanted.values())
    return PartitionVerdict(
        topic=exported.topic, partition=exported.partition, records=tree.size, root=root, holds=holds
    )


def _same_bytes(folder: Path, file: ExportFile, findings: Findings) -> bool:
    """Whether there is a file to read; that its bytes are others is a finding, and it is read all the same."""
    try:
        found = file_sha256(folder / file.path)
    except OSError as error:
        findings.add(f"{file.path}: the file is missing or cannot be read ({error.strerror})")
        return False
    if found != file.sha256:
        findings.add(f"{file.path}: its SHA-256 is {found}, the manifest says {file.sha256}")
    return True


def _faults(row: Row, leaf: bytes, exported: ExportedPartition, number: int, last: int) -> Iterator[str]:
    record = row.record
    where = Place(record.topic, record.partition, record.offset)
    if leaf != row.leaf_sha256:
        yield f"{where}: the record was altered: its hash is not the one that was noted"
    if (record.topic, record.partition) != (exported.topic, exported.partition):
        yield f"{where}: the record does not belong to {exported.name}"
    if row.number != number:
        yield f"{where}: it was record {row.number} of its partition and is record {number}: records were dropped, added or moved"
    if record.offset <= last:
        yield f"{where}: it lies behind offset {last}: records were added or moved"
    if record.offset >= exported.end:
        yield f"{where}: the export ends at offset {exported.end}: the record was added"
    if row.said != Row.of(record, number).said:
        yield f"{where}: the decoded columns are not what the record says"


def prove(folder: Path, manifest: Manifest, place: Place) -> Proof | None:
    """That the record at `place` is in the export; None where it is not. Raises FileDamaged and OSError.

    Whether the proof leads to the root is for the caller to see: see `leads_to_root`.
    """
    exported = next((item for item in manifest.partitions if (item.topic, item.partition) == place[:2]), None)
    if exported is None:
        return None
    number, row = _find(folder, exported, place.offset)
    if row is None:
        return None
    leaf = leaf_bytes(row.record)
    leaves = (leaf_hash(leaf_bytes(each.record)) for each in _rows(folder, exported))
    return Proof(
        topic=place.topic,
        partition=place.partition,
        offset=place.offset,
        leaf_index=number,
        tree_size=exported.records,
        leaf=base64.b64encode(leaf).decode(),
        leaf_sha256=leaf_hash(leaf).hex(),
        path=audit_path(leaves, number, exported.records),
        root=exported.root,
    )


def _find(folder: Path, exported: ExportedPartition, offset: int) -> tuple[int, Row | None]:
    """The record of this offset and how many lie before it; only the file that may have it is read."""
    number = 0
    for file in exported.files:
        if file.last_offset < offset:
            number += file.records
            continue
        for row in parquet.read_rows(folder / file.path):
            if row.record.offset == offset:
                return number, row
            number += 1
        break
    return number, None


def leads_to_root(proof: Proof) -> bool:
    """Whether the path of a proof ends at its root; what anybody can compute."""
    leaf = hashlib.sha256(b"\x00" + base64.b64decode(proof.leaf)).digest()
    return leaf.hex() == proof.leaf_sha256 and root_of_path(leaf, proof.path).hex() == proof.root


async def compare_with_log(bootstrap: str, folder: Path, manifest: Manifest, findings: Findings) -> None:
    """Read the exported part of the log again. A record that differs, or is on one side only, is a finding.

    Raises Unusable for another cluster's log, UnknownTopic and the errors of broker and disk.
    """
    found = await log.cluster_id(bootstrap)
    if found != manifest.cluster_id:
        raise Unusable(f"{folder} is of Kafka cluster {manifest.cluster_id} and this is {found}; name that one")
    spans = await log.bounds(bootstrap, {item.topic for item in manifest.partitions})
    for exported in manifest.partitions:
        begin, end = spans.get((exported.topic, exported.partition), (0, 0))
        if begin > exported.begin:
            findings.add(f"{exported.name}: the log begins at offset {begin} now; what lay before cannot be compared")
        if end < exported.end:
            findings.add(f"{exported.name}: the log ends at offset {end} and the export at {exported.end}: another log")
        await _compare(bootstrap, folder, exported, (max(begin, exported.begin), min(end, exported.end)), findings)


async def _compare(
    bootstrap: str, folder: Path, exported: ExportedPartition, span: log.Range, findings: Findings
) -> None:
    rows = (row for row in _rows(folder, exported) if span[0] <= row.record.offset < span[1])
    row = next(rows, None)

    def only_exported(offset: int) -> None:
        findings.add(f"{Place(exported.topic, exported.partition, offset)}: the export has it and the log has not")

    async for chunk in log.read(bootstrap, {(exported.topic, exported.partition): span}):
        for record in map(raw, chunk):
            while row is not None and row.record.offset < record.offset:
                only_exported(row.record.offset)
                row = next(rows, None)
            where = Place(exported.topic, exported.partition, record.offset)
            if row is None or row.record.offset > record.offset:
                findings.add(f"{where}: the log has it and the export has not")
                continue
            if leaf_bytes(row.record) != leaf_bytes(record):
                findings.add(f"{where}: the export says something else than the log")
            row = next(rows, None)
    while row is not None:
        only_exported(row.record.offset)
        row = next(rows, None)


def _rows(folder: Path, exported: ExportedPartition) -> Iterator[Row]:
    for file in exported.files:
        yield from parquet.read_rows(folder / file.path)
