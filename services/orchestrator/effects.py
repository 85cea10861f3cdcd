"""Stores the latest progress of attempts, beside the projection, and notifies the watchers of jobs."""

from collections.abc import Sequence

from schemas.attributes import ATTRIBUTE_LIMIT
from schemas.envelope import Event
from schemas.progress import StepProgressed
from services.chassis.kernel.aggregate import States
from services.chassis.kernel.effects import Notification
from services.chassis.postgres.transactions import Session
from services.orchestrator import statements
from services.orchestrator.domain.job import JobEvent

CHANNEL = "jobs"
"""NOTIFY channel; payloads are ids of jobs whose row or progress changed."""


class JobEffects:
    """Stores progress, which is lossy and unordered, so the newest by time is kept."""

    async def __call__(self, connection: Session, events: Sequence[Event], states: States) -> Sequence[Notification]:
        """Write all progress of the transaction in one statement."""
        latest: dict[str, tuple[Event, StepProgressed]] = {}
        changed: dict[str, None] = {}
        for event in events:
            data = event.data
            if not isinstance(data, JobEvent) or len(data.job_id) > ATTRIBUTE_LIMIT:
                continue
            changed[data.job_id] = None
            if isinstance(data, StepProgressed) and len(data.step) <= ATTRIBUTE_LIMIT:
                key = f"{data.job_id}/{data.step}/{data.attempt}"
                if key not in latest or latest[key][0].time <= event.time:
                    latest[key] = (event, data)
        if latest:
            newest = sorted(latest.items())
            await connection.execute(
                statements.KEEP_LATEST,
                {
                    "keys": [key for key, _ in newest],
                    "job_ids": [data.job_id for _, (_, data) in newest],
                    "at": [event.time for _, (event, _) in newest],
                    "data": [data.model_dump_json() for _, (_, data) in newest],
                },
            )
        return [(CHANNEL, job_id) for job_id in changed]
