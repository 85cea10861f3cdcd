"""Publishes the demo's job, follows it to its last event, and cancels it if the person interrupts the demo."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol

from schemas.envelope import Event
from schemas.requests import JobRequest
from services.demo.screen import Screen
from services.demo.story import Story, fold

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


async def watch(bus: Bus, job: JobRequest, screen: Screen, *, trouble: Callable[[], str | None]) -> Story:
    """Publish `job` and return its whole story.

    Cancelling the task that runs this (Ctrl-C) cancels the job and waits briefly for its end. `trouble` returns what failed
    outside the job, if anything: then Stranded is raised.
    """
    await bus.request(job)
    story = Story(job.job_id)
    try:
        ended: float | None = None
        while not story.told:
            story = await _listen(bus, story, screen)
            if (fault := trouble()) is not None:
                raise Stranded(fault)
            if story.outcome is not None:
                ended = ended or time.monotonic()
                if time.monotonic() - ended > _LAST_WORDS_SECONDS:
                    break
    except asyncio.CancelledError:
        await _within(_CANCEL_SECONDS, _cancelled(bus, story, screen, trouble))
        raise
    return story


async def _listen(bus: Bus, story: Story, screen: Screen) -> Story:
    for topic, event in await bus.read(_POLL_SECONDS):
        story = fold(story, topic, event)
    screen.show(story, datetime.now(UTC))
    return story


async def _cancelled(bus: Bus, story: Story, screen: Screen, trouble: Callable[[], str | None]) -> None:
    if story.outcome is None:
        await bus.cancel("stopped at the terminal")
        while story.outcome is None and trouble() is None:
            story = await _listen(bus, story, screen)


async def _within(seconds: float, work: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        pass
