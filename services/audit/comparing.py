"""Compares an export with the log that it was made from, record by record; this check needs no root kept elsewhere."""

from pathlib import Path

from services.audit.export import raw
from services.audit.findings import ExportFindings
from services.audit.inclusion_proof import rows_of
from services.audit.leaf import leaf_bytes
from services.audit.manifest import ExportedPartition, ExportManifest, Unusable
from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel import log
from services.chassis.kernel.records import named


async def compare_with_log(cluster: Cluster, folder: Path, manifest: ExportManifest, findings: ExportFindings) -> None:
    """Read the exported part of the log again. A record that differs, or that only one side has, becomes a finding.

    Raises Unusable for another cluster's log, UnknownTopic and the errors of broker and disk.
    """
    found = await log.cluster_id(cluster)
    if found != manifest.cluster_id:
        raise Unusable(
            f"{folder} is of Kafka cluster {manifest.cluster_id} and this is {found}; use the cluster of the export"
        )
    spans = await log.bounds(cluster, {item.topic for item in manifest.partitions})
    for topic, number in sorted(set(spans) - {(item.topic, item.partition) for item in manifest.partitions}):
        findings.add(f"{topic}:{number}: the log has this partition, and the export does not")
    for exported in manifest.partitions:
        begin, end = spans.get((exported.topic, exported.partition), (0, 0))
        if begin > exported.begin:
            findings.add(f"{exported.name}: the log begins at offset {begin} now; earlier records cannot be compared")
        if end < exported.end:
            findings.add(
                f"{exported.name}: the log ends at offset {end} and the export at {exported.end}: it is another log"
            )
        await _compare(cluster, folder, exported, (max(begin, exported.begin), min(end, exported.end)), findings)


async def _compare(
    cluster: Cluster, folder: Path, exported: ExportedPartition, span: log.Range, findings: ExportFindings
) -> None:
    rows = (row for row in rows_of(folder, exported) if span[0] <= row.record.offset < span[1])
    row = next(rows, None)

    def only_exported(offset: int) -> None:
        findings.add(
            f"{named((exported.topic, exported.partition, offset))}: the export has this record, and the log does not"
        )

    async with log.read(cluster, {(exported.topic, exported.partition): span}) as chunks:
        async for chunk in chunks:
            for record in map(raw, chunk):
                while row is not None and row.record.offset < record.offset:
                    only_exported(row.record.offset)
                    row = next(rows, None)
                where = named((record.topic, record.partition, record.offset))
                if row is None or row.record.offset > record.offset:
                    findings.add(f"{where}: the log has this record, and the export does not")
                    continue
                if leaf_bytes(row.record) != leaf_bytes(record):
                    findings.add(f"{where}: the export differs from the log")
                row = next(rows, None)
    while row is not None:
        only_exported(row.record.offset)
        row = next(rows, None)
