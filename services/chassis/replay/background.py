"""Why: a replay that an operator started over HTTP runs in a thread with a loop of its own, so that the service goes on serving."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from threading import Thread

from services.chassis.logging import get_logger
from services.chassis.replay.projection import Projection

_log = get_logger(__name__)
_END_SECONDS = 10.0

Replay = Callable[[Projection], Awaitable[object]]


class Replays:
    """At most one replay of a service at once in this process; the database's lock keeps others away too."""

    def __init__(self, projection: Projection) -> None:
        self.projection = projection
        self._current: tuple[asyncio.AbstractEventLoop, asyncio.Task[object]] | None = None
        self._thread: Thread | None = None

    async def start(self, replay: Replay) -> None:
        """Start it; returns when it holds the lock and is written down, raises what it fails with before."""
        begun: Future[None] = Future()
        self._thread = Thread(
            target=self._work, args=(replay, begun), name=f"replay-{self.projection.service}", daemon=True
        )
        self._thread.start()
        await asyncio.wrap_future(begun)

    def cancel(self) -> bool:
        """Ask the running one to end; False when none runs here."""
        if self._current is None:
            return False
        loop, task = self._current
        loop.call_soon_threadsafe(task.cancel)
        return True

    async def run(self, stop: asyncio.Event) -> None:
        """Wait for `stop`, then end what runs: a task of the service."""
        await stop.wait()
        if self.cancel() and self._thread is not None:
            await asyncio.to_thread(self._thread.join, _END_SECONDS)

    def _work(self, replay: Replay, begun: "Future[None]") -> None:
        try:
            asyncio.run(self._watched(replay, begun))
        except asyncio.CancelledError:
            _log.info("replay cancelled", service=self.projection.service)
        except Exception as error:
            if begun.done():
                _log.warning("replay failed", service=self.projection.service, error=str(error)[:500])
            else:
                begun.set_exception(error)
        finally:
            self._current = None

    async def _watched(self, replay: Replay, begun: "Future[None]") -> None:
        task = asyncio.ensure_future(replay(self.projection))
        self._current = asyncio.get_running_loop(), task
        done, _ = await asyncio.wait([task], timeout=0.5)
        if done:
            await task
        begun.set_result(None)
        await task
