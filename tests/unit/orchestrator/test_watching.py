"""A start or a cancel looks at its job when that is signalled, once, and in the end whatever was signalled."""

from datetime import UTC, datetime
from typing import cast

from services.chassis.postgres.notifications import Notifications
from services.orchestrator.domain.state import JobState
from services.orchestrator.effects import CHANNEL
from services.orchestrator.queries import JobQueries, JobRow
from services.orchestrator.watching import watching

JOB = JobRow("job", JobState(), 1, datetime(2030, 1, 1, tzinfo=UTC))
PATIENCE = 60.0


class Looks:
    """Finds the job, and counts how often it was looked for."""

    looks = 0

    async def find(self, _job_id: str) -> JobRow:
        self.looks += 1
        return JOB


def signals() -> Notifications:
    return Notifications("postgresql://nobody@127.0.0.1:1/nothing")


async def test_a_job_that_is_signalled_is_looked_at_once() -> None:
    looks, channel = Looks(), signals()
    with watching(channel, cast(JobQueries, looks), "job") as watch:
        channel._received(None, 0, CHANNEL, "job")
        assert await watch.until(lambda _: True, PATIENCE) is JOB
    assert looks.looks == 1


async def test_other_jobs_wake_nobody() -> None:
    looks, channel = Looks(), signals()
    with watching(channel, cast(JobQueries, looks), "job") as watch:
        channel._received(None, 0, CHANNEL, "other")
        assert await watch.until(lambda _: False, 0.05) is JOB
    assert looks.looks == 1


async def test_without_a_signal_the_job_is_told_as_it_is_in_the_end() -> None:
    looks, channel = Looks(), signals()
    with watching(channel, cast(JobQueries, looks), "job") as watch:
        assert await watch.until(lambda _: False, 0.05) is JOB
    assert looks.looks == 1
