"""Reads from the log every record about one version and its job, with the Merkle trees of the partitions that they lie on.

The topic of models is read once to know the job, then all topics to hash every record. Of records about others only the hash is kept, 32
bytes each, and beyond a few megabytes in a temporary file.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version as installed
from tempfile import SpooledTemporaryFile
from typing import NamedTuple

from aiokafka import ConsumerRecord

from schemas.envelope import Event, UnknownVersion, Unreadable
from schemas.models import ModelRegistered, VersionFilesRemoved
from schemas.topics import EVENT_TYPES, JOBS, MODELS, REQUESTS, aggregate_key
from services.audit.bundle.faults import BundleRefused
from services.audit.bundle.log_view import FORMAT, LogView, SeenPartition
from services.audit.bundle.record_lines import ProvenRecord
from services.audit.bundle.sources import REGISTRY
from services.audit.export import raw
from services.audit.leaf import RawRecord, leaf_bytes
from services.audit.merkle import audit_paths, leaf_hash
from services.audit.selection import is_of_job
from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel import log
from services.chassis.kernel.log import Range
from services.chassis.kernel.records import Partition, event_in

TOPICS = (JOBS.name, MODELS.name, REQUESTS.name)
_MOVES = ("ModelPromoted", "ModelRolledBack")
_IN_MEMORY = 8 * 2**20
_HASH = 32


class UnknownModelVersion(LookupError):
    """The log has no such version."""


class Collected(NamedTuple):
    """What the log says about a version."""

    view: LogView
    records: tuple[ProvenRecord, ...]
    """By topic, partition and offset."""
    files_removed_at: datetime | None = None

    def require_files(self, remedy: str) -> None:
        """Raise BundleRefused if the version was deleted and its files are removed."""
        if self.files_removed_at is not None:
            at = f"{self.files_removed_at:%Y-%m-%d %H:%M:%S %Z}"
            raise BundleRefused(
                f"the files of {self.view.model}@{self.view.version} were removed at {at}, because the version was deleted; {remedy}"
            )


class _Target(NamedTuple):
    model: str
    version: str
    job_id: str
    files_removed_at: datetime | None


class _Leaves:
    """The hashes of one partition's records, and the records that are wanted."""

    def __init__(self, files: ExitStack) -> None:
        self._hashes = files.enter_context(SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115  # the stack closes it
        self.wanted: dict[int, RawRecord] = {}
        self.size = 0

    def add(self, record: RawRecord, *, wanted: bool) -> None:
        """Append a record."""
        self._hashes.write(leaf_hash(leaf_bytes(record)))
        if wanted:
            self.wanted[self.size] = record
        self.size += 1

    def proven(self) -> tuple[str, list[ProvenRecord]]:
        """Return the root, and the wanted records with their proofs."""
        self._hashes.seek(0)
        root, paths = audit_paths(self._each(), self.wanted, self.size)
        return root.hex(), [
            ProvenRecord(record, index, tuple(sibling.sha256 for sibling in paths[index]))
            for index, record in self.wanted.items()
        ]

    def _each(self) -> Iterator[bytes]:
        while found := self._hashes.read(_HASH):
            yield found


async def collect(cluster: Cluster, target: str) -> Collected:
    """Collect the records about `model@version` or `model@alias`. Raises UnknownModelVersion, UnknownTopic and the broker's errors."""
    read_at = datetime.now(UTC)
    found = await _resolve(cluster, target)
    cluster_id = await log.cluster_id(cluster)
    spans = await log.bounds(cluster, TOPICS)
    with ExitStack() as files:
        leaves = await _leaves(cluster, spans, found, files)
        seen, records = [], list[ProvenRecord]()
        for partition, span in sorted(spans.items()):
            root, proven = leaves[partition].proven()
            if proven:
                seen.append(_seen(partition, span, leaves[partition].size, root))
                records += proven
    view = LogView(
        format=FORMAT, model=found.model, version=found.version, cluster_id=cluster_id, read_at=read_at,
        software=f"neuroweaver {installed('neuroweaver')}", partitions=tuple(seen),
    )  # fmt: skip
    return Collected(view, tuple(records), found.files_removed_at)


def _seen(partition: Partition, span: Range, records: int, root: str) -> SeenPartition:
    topic, number = partition
    return SeenPartition(topic=topic, partition=number, begin=span[0], end=span[1], records=records, root=root)


async def _leaves(
    cluster: Cluster, spans: dict[Partition, Range], target: _Target, files: ExitStack
) -> dict[Partition, _Leaves]:
    leaves = {partition: _Leaves(files) for partition in spans}
    async with log.read(cluster, spans) as chunks:
        async for chunk in chunks:
            for record in chunk:
                leaves[record.topic, record.partition].add(raw(record), wanted=_is_about(record, target))
    return leaves


def _is_about(record: ConsumerRecord, target: _Target) -> bool:
    if record.topic != MODELS.name:
        if not is_of_job(record, target.job_id):
            return False
        event = _event(record)
        return event is not None and aggregate_key(event.data) == target.job_id
    event = _of_registry(record)
    return event is not None and _named(event) == (target.model, target.version)


async def _resolve(cluster: Cluster, target: str) -> _Target:
    """Return the version that `target` names now, and the job that made it."""
    model, _, name = target.partition("@")
    jobs: dict[str, str] = {}
    aliases: dict[str, str] = {}
    removed: dict[str, datetime] = {}
    async with log.read(cluster, await log.bounds(cluster, [MODELS.name])) as chunks:
        async for chunk in chunks:
            for record in chunk:
                event = _of_registry(record)
                if event is None or _named(event)[0] != model:
                    continue
                if isinstance(event.data, ModelRegistered):
                    jobs[event.data.version] = event.data.lineage.job_id
                elif isinstance(event.data, VersionFilesRemoved):
                    removed[event.data.version] = event.time
                elif event.type in _MOVES:
                    aliases[getattr(event.data, "alias", "")] = str(_named(event)[1])
                elif event.type == "AliasRemoved":
                    aliases.pop(getattr(event.data, "alias", ""), None)
    version = name if name in jobs else aliases.get(name, name)
    if version not in jobs:
        known = ", ".join([*jobs, *aliases][-20:]) or "no version of it"
        raise UnknownModelVersion(f"{target} is not in the log, which has {known}")
    return _Target(model, version, jobs[version], removed.get(version))


def _of_registry(record: ConsumerRecord) -> Event | None:
    event = _event(record)
    return event if event is not None and event.source == REGISTRY else None


def _named(event: Event) -> tuple[str | None, str | None]:
    return getattr(event.data, "model", None), getattr(event.data, "version", None)


def _event(record: ConsumerRecord) -> Event | None:
    try:
        event = event_in(record, EVENT_TYPES)
    except (Unreadable, UnknownVersion):
        return None
    return event if isinstance(event, Event) else None
