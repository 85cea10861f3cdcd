"""Runs a replay that an operator started over HTTP in a thread with its own event loop, so that the service keeps serving."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from threading import Lock, Thread

from services.chassis.process.logging import get_logger
from services.chassis.process.transient import described
from services.chassis.replay.projection import Projection
from services.chassis.replay.runs import Busy

_log = get_logger(__name__)
_BEGUN_SECONDS = 0.5
"""A replay that has not failed after this time holds its lock and has a row in the table of runs."""
_END_SECONDS = 10.0

Replay = Callable[[Projection], Awaitable[object]]


class Replays:
    """Runs at most one replay of a service at a time in this process; a database lock excludes other processes."""

    def __init__(self, projection: Projection) -> None:
        self.projection = projection
        self._current: _Running | None = None

    async def start(self, replay: Replay) -> None:
        """Start a replay; returns when it holds the lock and has a row in the table of runs.

        Raises Busy if one runs here or this one was cancelled at once, and any error with which it fails before it has
        begun. If the caller is cancelled, the replay continues.
        """
        if self._current is not None and not self._current.ended:
            raise Busy("a replay of this service is running in this process; wait for it, or cancel it")
        self._current = running = _Running(replay, self.projection)
        await running.begin()

    def cancel(self) -> bool:
        """Ask the running replay to end; False when none runs here."""
        if self._current is None or self._current.ended:
            return False
        self._current.cancel()
        return True

    async def run(self, stop: asyncio.Event) -> None:
        """Wait for `stop`, then end the running replay; the service runs this as a task."""
        await stop.wait()
        if self.cancel() and self._current is not None:
            await asyncio.to_thread(self._current.join, _END_SECONDS)


class _Running:
    """One replay in its thread: it starts, then has begun or failed to begin, then has ended; it can be cancelled at any moment."""

    def __init__(self, replay: Replay, projection: Projection) -> None:
        self._replay, self._projection = replay, projection
        self._begun: Future[None] = Future()
        self._changing = Lock()
        self._cancelled = False
        self._task: tuple[asyncio.AbstractEventLoop, asyncio.Future[object]] | None = None
        """Loop and task of the replay while it can be cancelled."""
        self._thread = Thread(target=self._work, name=f"replay-{projection.service}", daemon=True)

    @property
    def ended(self) -> bool:
        """Whether it has ended or was never started."""
        return not self._thread.is_alive()

    async def begin(self) -> None:
        """Start the thread and wait until the replay has begun. Raises the error with which it fails before that."""
        self._thread.start()
        await asyncio.shield(asyncio.wrap_future(self._begun))

    def cancel(self) -> None:
        """Ask the replay to end, whether it has begun or not."""
        with self._changing:
            self._cancelled = True
            if self._task is not None:
                loop, task = self._task
                loop.call_soon_threadsafe(task.cancel)

    def join(self, seconds: float) -> None:
        """Wait for its end, at most `seconds`."""
        self._thread.join(seconds)

    def _work(self) -> None:
        service = self._projection.service
        try:
            asyncio.run(self._watched())
        except asyncio.CancelledError:
            _log.info("replay cancelled", service=service)
            self._not_begun(Busy("the replay was cancelled before it began"))
        except BaseException as error:
            if not self._not_begun(error):
                _log.warning("replay failed", service=service, error=described(error))

    async def _watched(self) -> None:
        task = asyncio.ensure_future(self._replay(self._projection))
        with self._changing:
            self._task = asyncio.get_running_loop(), task
            if self._cancelled:
                task.cancel()
        try:
            await asyncio.wait([task], timeout=_BEGUN_SECONDS)
            if not task.done():
                self._begun.set_result(None)
            await task
        finally:
            with self._changing:
                self._task = None
        if not self._begun.done():
            self._begun.set_result(None)

    def _not_begun(self, error: BaseException) -> bool:
        """Pass the error to the caller that waits in `begin`; False when the replay had begun."""
        if self._begun.done():
            return False
        self._begun.set_exception(error)
        return True
