"""Serves server-sent events about jobs from rows, woken by NOTIFY, so that any replica can serve any listener.

One task polls for all listeners, with one statement for all changes. Each change is serialised once and passed to its
listeners a few at a time, so that the process can do other work in between.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.chassis.postgres.notifications import Notifications, Subscription
from services.chassis.process.logging import get_logger
from services.chassis.process.repeated_failures import FailureLog
from services.chassis.process.transient import is_transient
from services.chassis.serving.web.offloading import in_thread_if_large
from services.orchestrator.effects import CHANNEL
from services.orchestrator.job_stream import JobStream, go_on, since
from services.orchestrator.looks import UNSEEN, JobLooks, Look, Mark
from services.orchestrator.queries import JobRow
from services.orchestrator.rendering import job_progress, job_view
from services.orchestrator.watching import LOOK_SECONDS

_log = get_logger(__name__)
_PAUSE_SECONDS = 0.05
"""The least time between two polls; changes that come closer together are sent together."""
_SHARE = 2
"""After the time spent on serialising, this many times as much is left to other work: it takes at most a third of the
loop."""
_LONGEST_PAUSE_SECONDS = 1.0
_AT_ONCE = 10
"""Number of listeners that are woken before other tasks run."""


@dataclass(eq=False)
class _Watched:
    """A job that has listeners."""

    listeners: set["Listener"] = field(default_factory=set)
    mark: Mark = UNSEEN
    row: JobRow | None = None
    story: JobStream | None = None
    looked: bool = False
    """Whether the first poll has determined if the job exists."""
    fault: Exception | None = None
    """Why that could not be determined."""


class Listener:
    """One stream's position in the revisions of a job."""

    def __init__(self, stories: "Stories", job_id: str, watched: _Watched, seen: str | None) -> None:
        self.woken = asyncio.Event()
        self._stories, self._job_id, self._watched = stories, job_id, watched
        self._seen, self._told, self._over = seen, 0, False

    async def known(self) -> bool:
        """Wait until it is known whether the job exists, and return that. Raises the error that prevented the poll."""
        while not (self._watched.looked or self._watched.fault):
            self.woken.clear()
            await self.woken.wait()
        if self._watched.fault:
            raise self._watched.fault.with_traceback(None)  # else each raise would extend the shared traceback
        return self._watched.story is not None

    def take(self) -> bytes | None:
        """Return what was not sent yet; None after the end was sent."""
        story = self._watched.story
        if self._over or self._watched.fault or story is None:
            return None
        said = since(story, self._told, self._seen)
        self._told, self._over = story.revision, bool(story.end)
        return said

    def leave(self) -> None:
        """Remove this listener."""
        self._stories.leave(self._job_id, self)


class Stories:
    """All jobs of one process that have listeners. Its task runs as long as there is a listener."""

    def __init__(self, signals: Notifications, looks: JobLooks) -> None:
        self._signals, self._looks = signals, looks
        self._watched: dict[str, _Watched] = {}
        self._changed = Subscription(self._watched)
        self._task: asyncio.Task[None] | None = None
        self._failures = FailureLog(_log)
        self._writing_seconds = 0.0
        """Time that the latest poll took on the event loop."""

    async def listen(self, job_id: str, seen: str | None) -> Listener | None:
        """Add a listener, which must leave in the end; None if nobody requested the job. Raises if it cannot be read."""
        watched = self._watched.setdefault(job_id, _Watched())
        listener = Listener(self, job_id, watched, seen)
        watched.listeners.add(listener)
        try:
            if not watched.looked:
                self._changed.put(job_id)
            if self._task is None:
                self._task = asyncio.create_task(self._look_while_any_listens(), name="stories")
            if await listener.known():
                return listener
        except BaseException:
            listener.leave()
            raise
        listener.leave()
        return None

    def leave(self, job_id: str, listener: Listener) -> None:
        """Remove a listener, and the job with its last listener."""
        watched = self._watched.get(job_id)
        if watched is None or listener not in watched.listeners:
            return
        watched.listeners.discard(listener)
        if not watched.listeners:
            del self._watched[job_id]
        if not self._watched:
            self._changed.put("")

    async def _look_while_any_listens(self) -> None:
        loop = asyncio.get_running_loop()
        all_at = loop.time() + LOOK_SECONDS
        try:
            with self._signals.delivering(CHANNEL, self._changed):
                while self._watched:
                    changed = await self._changed.wait(max(0.0, all_at - loop.time()))
                    if loop.time() >= all_at or "" in changed:
                        changed, all_at = list(self._watched), loop.time() + LOOK_SECONDS
                    if due := {job_id: self._watched[job_id] for job_id in changed if job_id in self._watched}:
                        self._writing_seconds = 0.0
                        await self._look(due)
                        pause = max(_PAUSE_SECONDS, _SHARE * self._writing_seconds)
                        await asyncio.sleep(min(pause, _LONGEST_PAUSE_SECONDS))
        finally:
            self._task = None

    async def _look(self, due: Mapping[str, _Watched]) -> None:
        """Send the changes of `due`. While the database is away listeners wait; new listeners get the error."""
        fault: Exception | None = None
        try:
            async for look in self._looks.changed({job_id: watched.mark for job_id, watched in due.items()}):
                await self._tell(look, due[look.job_id])
            self._failures.recovered()
        except Exception as error:
            self._failures.failed("events: jobs not looked at", error, known=is_transient(error))
            fault = error
        for watched in due.values():
            if not watched.looked:  # the job does not exist, or that is unknown
                watched.looked, watched.fault = fault is None, fault
                await _wake(watched.listeners)

    async def _tell(self, look: Look, watched: _Watched) -> None:
        begun = time.perf_counter()
        try:
            size = len(look.state or "") + sum(len(data) for _, data in look.told)
            watched.row, watched.story = await in_thread_if_large(size, _made, look, watched.row, watched.story)
            watched.mark = look.mark
        except Exception as error:
            _log.exception("events: a job cannot be told", job_id=look.job_id)
            watched.fault = error
        self._writing_seconds += time.perf_counter() - begun
        watched.looked = True
        await _wake(watched.listeners)


def _made(look: Look, row: JobRow | None, story: JobStream | None) -> tuple[JobRow, JobStream]:
    row = look.row(row)
    return row, go_on(story, job_view(row), job_progress(row, look.progress))


async def _wake(listeners: Iterable[Listener]) -> None:
    for number, listener in enumerate(tuple(listeners)):
        listener.woken.set()
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
