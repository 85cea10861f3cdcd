"""Lets an HTTP route wait for a change of a job: NOTIFY wakes it, and a slow poll of the row is the fallback."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.chassis.postgres.notifications import Notifications, Subscription
from services.orchestrator.effects import CHANNEL
from services.orchestrator.queries import JobQueries, JobRow

POLL_SECONDS = 2.0
"""Interval of polling the row, since a notification can be lost with its connection."""


class Watch:
    """Watches one job, subscribed before its request is published."""

    def __init__(self, jobs: JobQueries, job_id: str, subscription: Subscription) -> None:
        self._jobs, self._job_id, self._subscription = jobs, job_id, subscription

    async def until(self, condition: Callable[[JobRow], bool], seconds: float) -> JobRow | None:
        """Return the job when `condition` holds after a notification, or as it is after `seconds`; None if unknown."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        row: JobRow | None = None
        try:
            async with asyncio.timeout(seconds + POLL_SECONDS):
                while True:
                    if (left := until - loop.time()) > 0:
                        await self._subscription.wait(min(left, POLL_SECONDS))
                    row = await asyncio.shield(self._jobs.find(self._job_id))  # never cancel a task inside a database call
                    if (row is not None and condition(row)) or loop.time() >= until:
                        return row
        except TimeoutError:
            return row


@contextmanager
def watching(signals: Notifications, jobs: JobQueries, job_id: str) -> Iterator[Watch]:
    """Subscribe for the duration of the block, so that no change within it is missed."""
    with signals.subscribe(CHANNEL, (job_id,)) as subscription:
        yield Watch(jobs, job_id, subscription)
