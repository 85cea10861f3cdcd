"""HTTP waits for a job to change without polling hard: NOTIFY wakes it, a slow look at the row is the safety net."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.chassis.postgres.notifications import Notifications, Subscription
from services.orchestrator.effects import CHANNEL
from services.orchestrator.queries import JobQueries, JobRow

LOOK_SECONDS = 2.0
"""A signal can be lost with its connection, so the row is looked at this often anyway."""


class Watch:
    """One job, listened to from before something is said about it."""

    def __init__(self, jobs: JobQueries, job_id: str, subscription: Subscription) -> None:
        self._jobs, self._job_id, self._subscription = jobs, job_id, subscription

    async def until(self, condition: Callable[[JobRow], bool], seconds: float) -> JobRow | None:
        """The job as soon as it was signalled and `condition` holds; after `seconds` as it is then, None where it is unknown."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        row: JobRow | None = None
        try:
            async with asyncio.timeout(seconds + LOOK_SECONDS):
                while True:
                    if (left := until - loop.time()) > 0:
                        await self._subscription.wait(min(left, LOOK_SECONDS))
                    row = await asyncio.shield(self._jobs.find(self._job_id))  # never cancel a task inside a database call
                    if (row is not None and condition(row)) or loop.time() >= until:
                        return row
        except TimeoutError:
            return row


@contextmanager
def watching(signals: Notifications, jobs: JobQueries, job_id: str) -> Iterator[Watch]:
    """Listen while the block runs, so that nothing said in it is missed."""
    with signals.subscribe(CHANNEL, (job_id,)) as subscription:
        yield Watch(jobs, job_id, subscription)
