"""Why: server-sent events about one job, read from rows and woken by NOTIFY, so that any replica can serve any reader.

Snapshots, not a log: a reader that comes back with Last-Event-ID gets what changed since, or nothing where nothing did.
"""

import hashlib
from collections.abc import AsyncIterator
from datetime import datetime

import anyio
from fastapi.sse import ServerSentEvent

from services.chassis.logging import get_logger
from services.chassis.signals import Signals
from services.chassis.surroundings import described, is_surroundings
from services.orchestrator.domain.state import ENDED
from services.orchestrator.effects import CHANNEL
from services.orchestrator.queries import JobQueries, JobRow
from services.orchestrator.rendering import job_progress, job_view
from services.orchestrator.views import JobProgress, JobView
from services.orchestrator.watching import changed

_log = get_logger(__name__)


async def story_of(signals: Signals, jobs: JobQueries, job_id: str, seen: str | None) -> AsyncIterator[ServerSentEvent]:
    """`job` at each change (its id is the digest of what it says), `progress` of steps that told some, `end` at the end.

    A database that is away is waited for; FastAPI's keep-alives go on meanwhile.
    """
    told: dict[str, tuple[int, datetime]] = {}
    with signals.subscribe(CHANNEL) as subscription:
        while True:
            found = await _look(jobs, job_id)
            if found:
                view, progress = found
                version = _version(view)
                if version != seen:
                    seen = version
                    yield ServerSentEvent(event="job", id=version, data=view)
                for step in progress.steps:
                    if step.at and told.get(step.step) != (step.attempt, step.at):
                        told[step.step] = (step.attempt, step.at)
                        yield ServerSentEvent(event="progress", data=step)
                if view.status in ENDED:
                    yield ServerSentEvent(event="end", data={"status": view.status})
                    return
            await changed(subscription, job_id)


async def _look(jobs: JobQueries, job_id: str) -> tuple[JobView, JobProgress] | None:
    """The job and its progress; None where the database does not answer. Never cancelled within a database call."""
    row: JobRow | None = None
    with anyio.CancelScope(shield=True):
        try:
            row = await jobs.find(job_id)
            progress = await jobs.progress(job_id) if row else []
        except Exception as error:
            if not is_surroundings(error):
                raise
            _log.warning("events: database away", job_id=job_id, error=described(error))
    return (job_view(row), job_progress(row, progress)) if row else None


def _version(view: JobView) -> str:
    return hashlib.sha256(view.model_dump_json().encode()).hexdigest()[:16]
