"""Whoever leaves the demo leaves no job behind, and whoever stays sees it to its end."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import pytest

from schemas.base import EventData
from schemas.envelope import Event
from schemas.jobs import JobCancelled, JobFailed, StepFault
from schemas.requests import JobRequest
from schemas.topics import TOPIC_OF
from services.demo import watch as watching
from services.demo.observed_job import ObservedJob
from services.demo.watch import Stranded, watch
from tests.unit.demo.test_observed_job import (
    ACCEPTED,
    ASKED,
    COMPLETED,
    JOB,
    PROMOTED,
    REGISTERED,
    REQUEST,
    completed,
    started,
)


class Script:
    """A bus that tells one fact per read, then nothing; after a cancel it tells `after_cancel`."""

    def __init__(self, facts: Sequence[EventData], after_cancel: Sequence[EventData] = ()) -> None:
        self.facts, self.after_cancel = list(facts), list(after_cancel)
        self.requested: list[str] = []
        self.cancelled: list[str] = []
        self.silent = asyncio.Event()

    async def request(self, job: JobRequest) -> None:
        self.requested.append(job.job_id)

    async def cancel(self, reason: str) -> None:
        self.cancelled.append(reason)
        self.facts = self.after_cancel

    async def read(self, seconds: float) -> list[tuple[str, Event]]:
        if not self.facts:
            self.silent.set()
            await asyncio.sleep(0.01)
            return []
        data = self.facts.pop(0)
        return [(TOPIC_OF[data.type_name()].name, Event("e", "s", "", datetime.now(UTC), data, None, JOB, None, ""))]


class Dark:
    """A screen that remembers the last picture."""

    last: ObservedJob | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def show(self, job: ObservedJob, now: datetime) -> None:
        self.last = job


def fine() -> str | None:
    return None


async def test_a_job_is_requested_once_and_followed_until_the_registry_has_spoken() -> None:
    bus, screen = Script([ASKED, ACCEPTED, started(), completed(), COMPLETED, REGISTERED, PROMOTED]), Dark()
    job = await watch(bus, REQUEST, screen, trouble=fine)
    assert bus.requested == [JOB]
    assert job.complete
    assert job == screen.last
    assert bus.cancelled == []


async def test_a_failed_job_is_told_at_once() -> None:
    fault = StepFault(cause="user", message="no such column")
    bus = Script([ASKED, ACCEPTED, JobFailed(job_id=JOB, step="prepare", fault=fault)])
    assert (await watch(bus, REQUEST, Dark(), trouble=fine)).fault == fault


async def test_a_silent_registry_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_LAST_WORDS_SECONDS", 0.05)
    job = await watch(Script([ASKED, ACCEPTED, COMPLETED]), REQUEST, Dark(), trouble=fine)
    assert job.outcome == "completed"
    assert not job.complete


async def test_leaving_cancels_the_job_and_waits_for_its_end() -> None:
    bus, screen = Script([ASKED, ACCEPTED, started()], [JobCancelled(job_id=JOB, reason="cancel")]), Dark()
    task = asyncio.create_task(watch(bus, REQUEST, screen, trouble=fine))
    await bus.silent.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bus.cancelled == ["stopped at the terminal"]
    assert screen.last
    assert screen.last.outcome == "cancelled"


async def test_leaving_does_not_wait_for_ever_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_CANCEL_SECONDS", 0.05)
    bus = Script([ASKED, ACCEPTED, started()])
    task = asyncio.create_task(watch(bus, REQUEST, Dark(), trouble=fine))
    await bus.silent.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 120)


async def test_trouble_outside_the_job_ends_the_wait() -> None:
    with pytest.raises(Stranded, match="Kafka has ended"):
        await watch(Script([ASKED]), REQUEST, Dark(), trouble=lambda: "Kafka has ended")
