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
from services.orchestrator.job_stream import JobStream, next_stream, since
from services.orchestrator.polling import UNSEEN, JobChange, JobPoller, RowVersions
from services.orchestrator.queries import JobRow
from services.orchestrator.rendering import job_progress, job_view
from services.orchestrator.watching import POLL_SECONDS

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
    versions: RowVersions = UNSEEN
    row: JobRow | None = None
    stream: JobStream | None = None
    polled: bool = False
    """Whether the first poll has determined if the job exists."""
    fault: Exception | None = None
    """Why that could not be determined."""


class Listener:
    """One stream's position in the revisions of a job."""

    def __init__(self, job_events: "JobEvents", job_id: str, watched: _Watched, seen: str | None) -> None:
        self.woken = asyncio.Event()
        self._events, self._job_id, self._watched = job_events, job_id, watched
        self._seen, self._sent, self._over = seen, 0, False

    async def known(self) -> bool:
        """Wait until it is known whether the job exists, and return that. Raises the error that prevented the poll."""
        while not (self._watched.polled or self._watched.fault):
            self.woken.clear()
            await self.woken.wait()
        if self._watched.fault:
            raise self._watched.fault.with_traceback(None)  # else each raise would extend the shared traceback
        return self._watched.stream is not None

    def take(self) -> bytes | None:
        """Return what was not sent yet; None after the end was sent."""
        stream = self._watched.stream
        if self._over or self._watched.fault or stream is None:
            return None
        unsent = since(stream, self._sent, self._seen)
        self._sent, self._over = stream.revision, bool(stream.end)
        return unsent

    def leave(self) -> None:
        """Remove this listener."""
        self._events.leave(self._job_id, self)


class JobEvents:
    """All jobs of one process that have listeners. Its task runs as long as there is a listener."""

    def __init__(self, notifications: Notifications, poller: JobPoller) -> None:
        self._notifications, self._poller = notifications, poller
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
            if not watched.polled:
                self._changed.put(job_id)
            if self._task is None:
                self._task = asyncio.create_task(self._poll_while_any_listens(), name="job-events")
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

    async def _poll_while_any_listens(self) -> None:
        loop = asyncio.get_running_loop()
        all_at = loop.time() + POLL_SECONDS
        try:
            with self._notifications.delivering(CHANNEL, self._changed):
                while self._watched:
                    changed = await self._changed.wait(max(0.0, all_at - loop.time()))
                    if loop.time() >= all_at or "" in changed:
                        changed, all_at = list(self._watched), loop.time() + POLL_SECONDS
                    if due := {job_id: self._watched[job_id] for job_id in changed if job_id in self._watched}:
                        self._writing_seconds = 0.0
                        await self._poll(due)
                        pause = max(_PAUSE_SECONDS, _SHARE * self._writing_seconds)
                        await asyncio.sleep(min(pause, _LONGEST_PAUSE_SECONDS))
        finally:
            self._task = None

    async def _poll(self, due: Mapping[str, _Watched]) -> None:
        """Send the changes of `due`. While the database is unreachable listeners wait; new listeners get the error."""
        fault: Exception | None = None
        try:
            async for change in self._poller.changed({job_id: watched.versions for job_id, watched in due.items()}):
                await self._publish(change, due[change.job_id])
            self._failures.recovered()
        except Exception as error:
            self._failures.failed("events: jobs could not be polled", error, known=is_transient(error))
            fault = error
        for watched in due.values():
            if not watched.polled:  # the job does not exist, or that is unknown
                watched.polled, watched.fault = fault is None, fault
                await _wake(watched.listeners)

    async def _publish(self, change: JobChange, watched: _Watched) -> None:
        begun = time.perf_counter()
        try:
            size = len(change.state or "") + sum(len(data) for _, data in change.progress_values)
            watched.row, watched.stream = await in_thread_if_large(size, _render, change, watched.row, watched.stream)
            watched.versions = change.versions
        except Exception as error:
            _log.exception("events: a job cannot be serialised", job_id=change.job_id)
            watched.fault = error
        self._writing_seconds += time.perf_counter() - begun
        watched.polled = True
        await _wake(watched.listeners)


def _render(change: JobChange, row: JobRow | None, stream: JobStream | None) -> tuple[JobRow, JobStream]:
    row = change.row(row)
    return row, next_stream(stream, job_view(row), job_progress(row, change.progress))


async def _wake(listeners: Iterable[Listener]) -> None:
    for number, listener in enumerate(tuple(listeners)):
        listener.woken.set()
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
