"""Proves that one record is in an export, to anybody who has only the export's root."""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from schemas.base import Frozen
from services.audit import parquet
from services.audit.leaf import leaf_bytes
from services.audit.manifest import ExportedPartition, ExportManifest
from services.audit.merkle import Sibling, audit_path, leaf_hash, root_of_path
from services.audit.parquet import ExportRow
from services.chassis.kernel.records import RecordId


class Proof(Frozen):
    """Proves that a record is in the export to anybody who knows the root: hash `leaf`, then follow the path."""

    topic: str
    partition: int
    offset: int
    leaf_index: int = Field(description="Index among the partition's records, from 0.")
    tree_size: int = Field(description="Number of the partition's records in the export.")
    leaf: str = Field(description="The record as its leaf is encoded, Base64.")
    leaf_sha256: str = Field(description="SHA-256 of a zero byte and the leaf.")
    path: tuple[Sibling, ...] = Field(
        description="Path from the leaf to the root; a node is the SHA-256 of a byte with the value 1, the left hash and "
        "the right hash."
    )
    root: str


def prove(folder: Path, manifest: ExportManifest, record_id: RecordId) -> Proof | None:
    """Prove that the record at `record_id` is in the export; None if it is not. Raises FileDamaged and OSError.

    The caller must check with `leads_to_root` that the proof leads to the root.
    """
    exported = next((item for item in manifest.partitions if (item.topic, item.partition) == record_id[:2]), None)
    if exported is None:
        return None
    number, row = _find(folder, exported, record_id[2])
    if row is None:
        return None
    leaf = leaf_bytes(row.record)
    leaves = (leaf_hash(leaf_bytes(each.record)) for each in rows_of(folder, exported))
    return Proof(
        topic=record_id[0],
        partition=record_id[1],
        offset=record_id[2],
        leaf_index=number,
        tree_size=exported.records,
        leaf=base64.b64encode(leaf).decode(),
        leaf_sha256=leaf_hash(leaf).hex(),
        path=audit_path(leaves, number, exported.records),
        root=exported.root,
    )


def _find(folder: Path, exported: ExportedPartition, offset: int) -> tuple[int, ExportRow | None]:
    """Return the record at this offset and the number of records before it; only the file that may contain it is read."""
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
    """Return whether the path of a proof ends at its root; anybody can compute this."""
    leaf = hashlib.sha256(b"\x00" + base64.b64decode(proof.leaf)).digest()
    return leaf.hex() == proof.leaf_sha256 and root_of_path(leaf, proof.path).hex() == proof.root


def rows_of(folder: Path, exported: ExportedPartition) -> Iterator[ExportRow]:
    """Yield all rows of a partition, in the order of its files. Raises FileDamaged and OSError."""
    for file in exported.files:
        yield from parquet.read_rows(folder / file.path)
