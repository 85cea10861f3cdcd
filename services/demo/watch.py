"""Publishes the demo's job, follows it to its last event, and cancels it if the person interrupts the demo."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol

from schemas.envelope import Event
from schemas.requests import JobRequest
from services.demo.observed_job import ObservedJob, fold
from services.demo.screen import DemoScreen

_POLL_SECONDS = 0.5
_LAST_WORDS_SECONDS = 20.0
"""The longest wait for the registry's events after JobCompleted, since they are on another topic."""
_CANCEL_SECONDS = 30.0


class Bus(Protocol):
    """The access to Kafka that is needed here."""

    async def request(self, job: JobRequest) -> None: ...

    async def cancel(self, reason: str) -> None: ...

    async def read(self, seconds: float) -> list[tuple[str, Event]]: ...


class Stranded(Exception):
    """The job cannot continue, because the stack or a service has ended."""


async def watch(bus: Bus, request: JobRequest, screen: DemoScreen, *, trouble: Callable[[], str | None]) -> ObservedJob:
    """Publish `request` and return its job when all of its events have been read.

    Cancelling the task that runs this (Ctrl-C) cancels the job and waits briefly for its end. `trouble` returns what failed
    outside the job, if anything: then Stranded is raised.
    """
    await bus.request(request)
    job = ObservedJob(request.job_id)
    try:
        ended: float | None = None
        while not job.complete:
            job = await _listen(bus, job, screen)
            if (fault := trouble()) is not None:
                raise Stranded(fault)
            if job.outcome is not None:
                ended = ended or time.monotonic()
                if time.monotonic() - ended > _LAST_WORDS_SECONDS:
                    break
    except asyncio.CancelledError:
        await _within(_CANCEL_SECONDS, _cancelled(bus, job, screen, trouble))
        raise
    return job


async def _listen(bus: Bus, job: ObservedJob, screen: DemoScreen) -> ObservedJob:
    for topic, event in await bus.read(_POLL_SECONDS):
        job = fold(job, topic, event)
    screen.show(job, datetime.now(UTC))
    return job


async def _cancelled(bus: Bus, job: ObservedJob, screen: DemoScreen, trouble: Callable[[], str | None]) -> None:
    if job.outcome is None:
        await bus.cancel("stopped at the terminal")
        while job.outcome is None and trouble() is None:
            job = await _listen(bus, job, screen)


async def _within(seconds: float, work: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        pass
