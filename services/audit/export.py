"""Exports the log to Parquet files, chunk by chunk and resumable, with a Merkle root per partition that reveals any change.

A chunk is written under a temporary name, synced, then renamed, so a kill at any instruction leaves only complete chunks,
and the next run continues after them. Memory is bounded by one chunk, however large the log is.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from aiokafka import ConsumerRecord

from services.audit import parquet
from services.audit.leaf import RawRecord
from services.audit.manifest import (
    FORMAT,
    MANIFEST,
    PLAN,
    ExportedPartition,
    ExportFile,
    ExportManifest,
    ExportPlan,
    PlannedPartition,
    Unusable,
    file_name,
    read_manifest,
    read_plan,
)
from services.audit.merkle import Tree
from services.audit.parquet import ExportRow, FileDamaged
from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel import log
from services.chassis.storage.digests import file_sha256
from services.chassis.storage.durable import replacing, sync


class ChunkLimit(NamedTuple):
    """When a chunk is full."""

    records: int = 10_000
    size: int = 8 * 2**20
    """The most bytes of keys, values and headers."""


FULL = ChunkLimit()

OnProgress = Callable[[int, int], None]
"""Called with the number of records exported so far and the number of offsets in all."""


async def export(
    cluster: Cluster,
    folder: Path,
    topics: Sequence[str],
    *,
    limit: ChunkLimit = FULL,
    on_progress: OnProgress = lambda _done, _of: None,
) -> tuple[ExportManifest, bool]:
    """Export what `topics` hold now, or the rest of an interrupted export; also return whether this run completed it.

    Raises Unusable, UnknownTopic, NoPyarrow and the errors of broker and disk; chunks written by then are kept.
    """
    parquet.require_pyarrow()
    with _alone(folder):
        if (manifest := read_manifest(folder)) is not None:
            _same_topics(folder, topics, manifest.partitions)
            return manifest, False
        plan = read_plan(folder) or await _begin(cluster, folder, topics)
        _same_topics(folder, topics, plan.partitions)
        await _same_log(cluster, folder, plan)
        total = sum(partition.end - partition.begin for partition in plan.partitions)
        exported: list[ExportedPartition] = []
        for partition in plan.partitions:
            before = sum(item.records for item in exported)
            writer = _Writer(folder, partition, limit, partial(_report_total, on_progress, before, total))
            exported.append(await writer.fill(cluster))
        manifest = ExportManifest(
            format=FORMAT,
            software=f"neuroweaver {version('neuroweaver')}",
            cluster_id=plan.cluster_id,
            planned_at=plan.planned_at,
            completed_at=datetime.now(UTC),
            partitions=tuple(exported),
        )
        with replacing(folder / MANIFEST) as out:
            out.write(manifest.model_dump_json(indent=1).encode() + b"\n")
        _forget_plan(folder)
        return manifest, True


class _Writer:
    """Writes the folder of one partition."""

    def __init__(self, folder: Path, partition: PlannedPartition, limit: ChunkLimit, report: Callable[[int], None]) -> None:
        self._root, self._partition, self._limit, self._report = folder, partition, limit, report
        self._folder = folder / partition.folder
        self._tree, self._files = Tree(), list[ExportFile]()
        self._next = partition.begin
        self._rows: list[ExportRow] = []
        self._size = 0

    async def fill(self, cluster: Cluster) -> ExportedPartition:
        """Read the existing chunks, then export the log up to the planned end."""
        self._read_existing()
        partition = self._partition
        if self._next < partition.end:
            await self._still_there(cluster)
            async with log.read(cluster, {(partition.topic, partition.partition): (self._next, partition.end)}) as chunks:
                async for chunk in chunks:
                    for record in chunk:
                        self._add(raw(record))
        self._close()
        return ExportedPartition(
            **partition.model_dump(), records=self._tree.size, root=self._tree.root().hex(), files=tuple(self._files)
        )

    def _read_existing(self) -> None:
        """Read the chunks of an earlier run again and remove an incomplete one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        sync(self._folder.parent)
        for path in self._folder.glob(".*.partial"):
            path.unlink()
        for path in sorted(self._folder.glob("*.parquet")):
            first = self._next
            try:
                for row in parquet.read_rows(path):
                    if row != ExportRow.of(row.record, self._tree.size) or row.record.offset < self._next:
                        raise FileDamaged(f"{path}: offset {row.record.offset} is not as it was exported")
                    if self._next == first and path.name != file_name(row.record.offset):
                        raise FileDamaged(f"{path}: it begins with offset {row.record.offset}")
                    self._tree.add(row.leaf_sha256)
                    first, self._next = first if self._next > first else row.record.offset, row.record.offset + 1
            except FileDamaged as error:
                raise Unusable(f"{error}; remove this file and later ones, and run the export again") from None
            self._note(path, first)

    async def _still_there(self, cluster: Cluster) -> None:
        partition = (self._partition.topic, self._partition.partition)
        begin, end = (await log.bounds(cluster, [partition[0]]))[partition]
        if begin > self._next or end < self._partition.end:
            raise Unusable(
                f"{self._root}: {self._partition.name} holds offsets {begin} to {end} now and the export needs "
                f"{self._next} to {self._partition.end}: the missing records were removed from the log; start a new "
                "export in another folder"
            )

    def _add(self, record: RawRecord) -> None:
        row = ExportRow.of(record, self._tree.size)
        self._tree.add(row.leaf_sha256)
        self._rows.append(row)
        self._size += len(record.key or b"") + len(record.value or b"")
        self._size += sum(len(name) + len(value or b"") for name, value in record.headers)
        if len(self._rows) >= self._limit.records or self._size >= self._limit.size:
            self._close()

    def _close(self) -> None:
        if not self._rows:
            return
        first = self._rows[0].record.offset
        path = self._folder / file_name(first)
        parquet.write_rows(path, self._rows)
        self._next = self._rows[-1].record.offset + 1
        self._rows, self._size = [], 0
        self._note(path, first)

    def _note(self, path: Path, first: int) -> None:
        before = sum(file.records for file in self._files)
        self._files.append(
            ExportFile(
                path=path.relative_to(self._root).as_posix(),
                sha256=file_sha256(path),
                size=path.stat().st_size,
                records=self._tree.size - before,
                first_offset=first,
                last_offset=self._next - 1,
            )
        )
        self._report(self._tree.size)


def _report_total(on_progress: OnProgress, before: int, total: int, records: int) -> None:
    on_progress(before + records, total)


def raw(record: ConsumerRecord) -> RawRecord:
    """Return the stored parts of a Kafka record."""
    return RawRecord(
        record.topic, record.partition, record.offset, record.timestamp, record.key, record.value, tuple(record.headers)
    )


async def _begin(cluster: Cluster, folder: Path, topics: Sequence[str]) -> ExportPlan:
    _require_empty(folder)
    spans = await log.bounds(cluster, topics)
    plan = ExportPlan(
        format=FORMAT,
        cluster_id=await log.cluster_id(cluster),
        planned_at=datetime.now(UTC),
        partitions=tuple(
            PlannedPartition(topic=topic, partition=number, begin=begin, end=end)
            for (topic, number), (begin, end) in sorted(spans.items())
        ),
    )
    with replacing(folder / PLAN) as out:
        out.write(plan.model_dump_json(indent=1).encode() + b"\n")
    return plan


def _require_empty(folder: Path) -> None:
    if others := sorted(path.name for path in folder.iterdir() if not path.name.endswith(".partial")):
        raise Unusable(f"{folder} contains {others[0]!r} and no export; name a folder that is empty or does not exist yet")


def _forget_plan(folder: Path) -> None:
    (folder / PLAN).unlink()


def _same_topics(folder: Path, topics: Sequence[str], partitions: Sequence[PlannedPartition]) -> None:
    known = {partition.topic for partition in partitions}
    if known != set(topics):
        names = " ".join(f"--topic {name}" for name in sorted(known))
        raise Unusable(f"{folder} contains an export of other topics; name another folder, or the same topics: {names}")


async def _same_log(cluster: Cluster, folder: Path, plan: ExportPlan) -> None:
    found = await log.cluster_id(cluster)
    if found != plan.cluster_id:
        raise Unusable(
            f"{folder} contains an unfinished export of Kafka cluster {plan.cluster_id}, and this is {found}; use that "
            "cluster, or name another folder"
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Unusable(f"another export is writing into {folder}; wait for it, or name another folder") from None
    else:
        yield
    finally:
        os.close(descriptor)
