"""Collects all events about one job or one version from the log, as the input of a trace."""

from collections.abc import Callable
from dataclasses import dataclass

from aiokafka import ConsumerRecord

from schemas.envelope import Event, UnknownVersion, Unreadable
from schemas.models import (
    AliasMoved,
    AliasRefused,
    AliasRemoved,
    ErasedRowsLearnt,
    GatesChecked,
    ModelRegistered,
    PromotionDeclined,
    PromotionRequested,
    VersionDescribed,
    VersionFilesRemoved,
    VersionStateChanged,
)
from schemas.topics import EVENT_TYPES, JOBS, MODELS, REQUESTS, aggregate_key
from services.audit.selection import is_of_job
from services.audit.tracing import Located
from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel import log
from services.chassis.kernel.records import appended_at, event_in, record_id_of
from services.registry.domain.models import RegistryDomain


class Unknown(LookupError):
    """The log has no such job or version."""


@dataclass(frozen=True)
class Evidence:
    """All events about one job."""

    job_id: str
    version: str | None
    """`model@1.0.0` if a version was requested."""
    records: list[Located]
    """Ordered by topic, partition and offset, so that the same log always gives the same trace."""


async def evidence(cluster: Cluster, target: str) -> Evidence:
    """Collect the events about a job, or about the job that made `model@version` or `model@alias`.

    Raises Unknown, UnknownTopic and the broker's errors.
    """
    models = [item for item in await _events(cluster, [MODELS.name], lambda _: True) if _is_the_registrys(item.event)]
    job_id, version = _of_version(models, target) if "@" in target else (target, None)
    about = [
        item
        for item in await _events(cluster, [REQUESTS.name, JOBS.name], lambda record: is_of_job(record, job_id))
        if aggregate_key(item.event.data) == job_id
    ]
    made = {
        (item.event.data.model, item.event.data.version)
        for item in models
        if isinstance(item.event.data, ModelRegistered) and item.event.data.lineage.job_id == job_id
    }
    about += [item for item in models if _version_of(item.event) in made]
    if not about:
        raise Unknown(f"job {job_id!r} is not in the log{_meant(models, target)}")
    return Evidence(job_id, version, sorted(about, key=lambda item: item.record_id))


def _is_the_registrys(event: Event) -> bool:
    return event.source == RegistryDomain().source


def _version_of(event: Event) -> tuple[str, str] | None:
    """Return model and version that an event of the registry is about; None for another event."""
    match event.data:
        case ModelRegistered() | AliasMoved() | AliasRefused() | GatesChecked() as data:
            return data.model, data.version
        case (
            PromotionRequested()
            | PromotionDeclined()
            | VersionDescribed()
            | VersionStateChanged()
            | VersionFilesRemoved()
            | ErasedRowsLearnt() as later
        ):
            return later.model, later.version
        case AliasRemoved() as removed:
            return removed.model, removed.previous
    return None


def _of_version(models: list[Located], target: str) -> tuple[str, str]:
    """Return the job that made a version, and the version as `model@number`."""
    model, _, name = target.partition("@")
    versions: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for item in models:
        match item.event.data:
            case ModelRegistered() as made if made.model == model:
                versions[made.version] = made.lineage.job_id
            case AliasMoved() as moved if moved.model == model:
                aliases[moved.alias] = moved.version
            case AliasRemoved() as removed if removed.model == model:
                aliases.pop(removed.alias, None)
    version = name if name in versions else aliases.get(name)
    if version not in versions:
        known = ", ".join([*versions, *aliases]) or "no version of it"
        raise Unknown(f"{target} is not in the log, which has {known}")
    assert version is not None
    return versions[version], f"{model}@{version}"


def _meant(models: list[Located], target: str) -> str:
    versions = [
        f"{item.event.data.model}@{item.event.data.version}"
        for item in models
        if isinstance(item.event.data, ModelRegistered) and item.event.data.model == target
    ]
    return f"; did you mean {', '.join(versions)}?" if versions else ""


async def _events(cluster: Cluster, topics: list[str], wanted: Callable[[ConsumerRecord], bool]) -> list[Located]:
    found = []
    async with log.read(cluster, await log.bounds(cluster, topics)) as chunks:
        async for chunk in chunks:
            for record in chunk:
                if not wanted(record):
                    continue
                try:
                    event = event_in(record, EVENT_TYPES)
                except (Unreadable, UnknownVersion):
                    continue
                if isinstance(event, Event):
                    found.append(Located(event, record_id_of(record), appended_at(record)))
    return found
