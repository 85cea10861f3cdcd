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
from services.registry.domain.models import RegistryDomain
from services.registry.domain.state import ModelState, RegistrationState, model_ref
from services.registry.views import VersionView

_MILLISECOND = timedelta(milliseconds=1)
_LAST = datetime.max.replace(tzinfo=UTC) - _MILLISECOND


@dataclass
class StateAsOf:
    """A fold up to a moment, with remarks on it."""

    fold: MemoryFold
    records: int = 0
    remarks: list[str] = field(default_factory=list)
    """Why the result may be incomplete; empty if it is complete."""


async def jobs_at(cluster: Cluster, moment: datetime, key: str | None = None) -> tuple[list[JobView], StateAsOf]:
    """Return every job requested by `moment`, or only job `key`, in its state of then, newest first; all are held in
    memory.

    Raises UnknownTopic and the broker's errors.
    """
    found = await _fold(
        cluster, JobDomain(Policy()), (REQUESTS, JOBS), moment, lambda record: key is None or is_of_job(record, key)
    )
    views = []
    for ref, row in found.fold.rows.items():
        assert isinstance(row.state, JobState)
        assert row.updated_at is not None
        if row.state.wish is None:
            found.remarks.append(f"job {ref.key}: there are facts about it, but no JobRequested by then")
        else:
            views.append(job_view(JobRow(ref.key, row.state, row.sequence, row.updated_at)))
    return sorted(views, key=lambda view: (view.requested_at or moment, view.job_id), reverse=True), found


_CHANGES = ("description", "tags", "state", "state_reason", "files_removed_at", "erased", "erased_rows")
"""What a version's row has beside its registration."""


async def versions_at(cluster: Cluster, moment: datetime, key: str | None = None) -> tuple[list[VersionView], StateAsOf]:
    """Return every version registered by `moment`, or those of model `key`, newest first, with the aliases of then.

    Raises as `jobs_at` does.
    """
    found = await _fold(
        cluster, RegistryDomain(), (MODELS,), moment, lambda record: key is None or record.key == raw_key(key)
    )
    rows = found.fold.rows
    views = []
    for row in rows.values():
        state = row.state
        if isinstance(state, RegistrationState) and state.registered and state.registered_at:
            owner = rows[model_ref(state.registered.model)].state
            assert isinstance(owner, ModelState)
            aliases = sorted(alias for alias, version in owner.aliases.items() if version == state.registered.version)
            view = VersionView.of(state.registered, state.registered_at, tuple(aliases))
            views.append(view.model_copy(update={name: getattr(state, name) for name in _CHANGES}))
    return sorted(views, key=lambda view: (view.registered_at, view.id), reverse=True), found


async def _fold(
    cluster: Cluster, domain: Domain, topics: tuple[Topic, ...], moment: datetime, wanted: Callable[[ConsumerRecord], bool]
) -> StateAsOf:
    spans = await log.bounds(cluster, [topic.name for topic in topics])
    after = min(moment, _LAST) - timedelta(microseconds=moment.microsecond % 1000) + _MILLISECOND
    cut = await log.first_at(cluster, spans, after)
    gone = {(item.topic, item.partition, item.offset) for item in await read_discards(cluster, domain.source)}
    found = StateAsOf(MemoryFold(Folding(domain), gone))
    found.remarks += [
        f"{topic}:{number} begins at offset {begin}: earlier records were removed from the log"
        for (topic, number), (begin, _) in sorted(spans.items())
        if begin > 0
    ]
    async with log.read(cluster, {partition: (spans[partition][0], end) for partition, end in cut.items()}) as chunks:
        async for chunk in chunks:
            for record in chunk:
                if wanted(record):
                    found.fold.feed(record)
            found.records += len(chunk)
    found.fold.finish()
    found.remarks += [
        f"{ref.aggregate} {ref.key} is shown in an earlier state: {reason}"
        for ref, reason in sorted(found.fold.stopped.items())
    ]
    return found
