"""Computes past states: folds every record that the broker had appended by a moment, with the code that runs today.

What a service knew when it decided is in its decision; this is what the log contained at that moment.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from aiokafka import ConsumerRecord

from schemas.steps import Policy
from schemas.topics import JOBS, MODELS, REQUESTS, Topic
from services.audit.selection import is_of_job, raw_key
from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel import log
from services.chassis.kernel.aggregate import Domain
from services.chassis.kernel.operations.discards import read_discards
from services.chassis.replay.memory import MemoryFold
from services.chassis.replay.projection import Folding
from services.orchestrator.domain.job import JobDomain
from services.orchestrator.domain.state import JobState
from services.orchestrator.queries import JobRow
from services.orchestrator.rendering import job_view
from services.orchestrator.views import JobView
from services.registry.domain.models import ModelState, RegistrationState, RegistryDomain, model_ref
from services.registry.views import VersionView

_MILLISECOND = timedelta(milliseconds=1)
_LAST = datetime.max.replace(tzinfo=UTC) - _MILLISECOND


@dataclass
class Past:
    """A fold up to a moment, with remarks on it."""

    fold: MemoryFold
    records: int = 0
    remarks: list[str] = field(default_factory=list)
    """Why the result may be incomplete; empty if it is complete."""


async def jobs_at(cluster: Cluster, moment: datetime, key: str | None = None) -> tuple[list[JobView], Past]:
    """Every job requested by `moment`, or only job `key`, in its state of then, newest first; all are held in memory.

    Raises UnknownTopic and the broker's errors.
    """
    past = await _fold(
        cluster, JobDomain(Policy()), (REQUESTS, JOBS), moment, lambda record: key is None or is_of_job(record, key)
    )
    views = []
    for ref, row in past.fold.rows.items():
        assert isinstance(row.state, JobState)
        assert row.updated_at is not None
        if row.state.wish is None:
            past.remarks.append(f"job {ref.key}: there are facts about it, but no JobRequested by then")
        else:
            views.append(job_view(JobRow(ref.key, row.state, row.sequence, row.updated_at)))
    return sorted(views, key=lambda view: (view.requested_at or moment, view.job_id), reverse=True), past


async def versions_at(cluster: Cluster, moment: datetime, key: str | None = None) -> tuple[list[VersionView], Past]:
    """Every version registered by `moment`, or those of model `key`, newest first, with the aliases of then.

    Raises as `jobs_at` does.
    """
    past = await _fold(
        cluster, RegistryDomain(), (MODELS,), moment, lambda record: key is None or record.key == raw_key(key)
    )
    rows = past.fold.rows
    views = []
    for row in rows.values():
        state = row.state
        if isinstance(state, RegistrationState) and state.registered and state.registered_at:
            owner = rows[model_ref(state.registered.model)].state
            assert isinstance(owner, ModelState)
            aliases = sorted(alias for alias, version in owner.aliases.items() if version == state.registered.version)
            views.append(VersionView.of(state.registered, state.registered_at, tuple(aliases)))
    return sorted(views, key=lambda view: (view.registered_at, view.id), reverse=True), past


async def _fold(
    cluster: Cluster, domain: Domain, topics: tuple[Topic, ...], moment: datetime, wanted: Callable[[ConsumerRecord], bool]
) -> Past:
    spans = await log.bounds(cluster, [topic.name for topic in topics])
    after = min(moment, _LAST) - timedelta(microseconds=moment.microsecond % 1000) + _MILLISECOND
    cut = await log.first_at(cluster, spans, after)
    gone = {(item.topic, item.partition, item.offset) for item in await read_discards(cluster, domain.source)}
    past = Past(MemoryFold(Folding(domain), gone))
    past.remarks += [
        f"{topic}:{number} begins at offset {begin}: what lay before was removed from the log"
        for (topic, number), (begin, _) in sorted(spans.items())
        if begin > 0
    ]
    async for chunk in log.read(cluster, {place: (spans[place][0], end) for place, end in cut.items()}):
        for record in chunk:
            if wanted(record):
                past.fold.feed(record)
        past.records += len(chunk)
    past.fold.finish()
    past.remarks += [
        f"{ref.aggregate} {ref.key} went no further: {reason}" for ref, reason in sorted(past.fold.stopped.items())
    ]
    return past
