"""HTTP waits for a job to change without polling hard: NOTIFY wakes it, a slow look at the row is the safety net."""

import asyncio
from collections.abc import Callable

from services.chassis.signals import Signals
from services.orchestrator.effects import CHANNEL
from services.orchestrator.queries import JobQueries, JobRow

LOOK_SECONDS = 2.0
"""A signal can be lost with its connection, so the row is looked at this often anyway."""


async def wait_for(
    signals: Signals, jobs: JobQueries, job_id: str, condition: Callable[[JobRow], bool], seconds: float
) -> JobRow | None:
    """The job as soon as `condition` holds; after `seconds` the job as it is then, None where it is unknown."""
    row: JobRow | None = None
    try:
        async with asyncio.timeout(seconds):
            with signals.subscribe(CHANNEL, (job_id,)) as subscription:
                while True:
                    row = await asyncio.shield(jobs.find(job_id))  # never cancel a task inside a database call
                    if row is not None and condition(row):
                        return row
                    await subscription.wait(LOOK_SECONDS)
    except TimeoutError:
        return row
