"""Keeps the lease of a run: renews it in time, and stops the run hard once the lease may have expired."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.chassis.executor.errors import note_error
from services.chassis.executor.host import Host
from services.chassis.executor.runner import StopReason, WorkContext
from services.chassis.executor.transactions import Held
from services.chassis.executor.waiting import first_of
from services.chassis.executor.work import checkpoint_wanted, renew
from services.chassis.postgres.notifications import Subscription
from services.chassis.process.transient import Backoff

_LEAVE_SECONDS = 5.0


class LeaseKeeper:
    """Renews the leases of one worker, one at a time."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._seconds = host.settings.lease_seconds
        self._abandoned: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def kept(self, held: Held, context: WorkContext, woken: Subscription) -> AsyncIterator[None]:
        """Renew the lease of `held` inside the block; `context` is told to stop where that fails, or where a cancel is requested."""
        done = asyncio.Event()
        keeping = asyncio.create_task(self._keep(held, context, done, woken))
        try:
            yield
        finally:
            done.set()
            await self._leave(keeping)

    async def _keep(self, held: Held, context: WorkContext, done: asyncio.Event, woken: Subscription) -> None:
        """Renew the lease until `done`, at once on a notification for this attempt; stop the run where that fails.

        A timer decides when the lease has expired; it also runs while a renewal hangs.
        """
        loop = asyncio.get_running_loop()
        fence = loop.call_at(held.until, context.request_stop, StopReason.LEASE_LOST)
        backoff = Backoff(0.2, self._seconds / 4)
        wait = self._seconds / 3
        asked_for: str | None = None
        try:
            while not done.is_set():
                await self._notified(held.lease.key, done, woken, wait)
                if done.is_set():
                    return
                sent_at = loop.time()
                try:
                    cancel = await renew(self._host.engine, held.lease, self._seconds)
                    wanted = await checkpoint_wanted(self._host.engine, held.lease)
                except Exception as error:
                    note_error(self._host.service, "the lease could not be renewed yet", error)
                    wait = backoff.next()
                    continue
                if cancel is None:
                    context.request_stop(StopReason.LEASE_LOST)
                    return
                fence.cancel()
                context.renewed()
                if wanted != asked_for:
                    asked_for = wanted
                    context.ask_for_checkpoint()
                if not context.lost.is_set():
                    fence = loop.call_at(sent_at + self._seconds, context.request_stop, StopReason.LEASE_LOST)
                if cancel:
                    context.request_stop(StopReason.CANCEL)
                backoff.reset()
                wait = self._seconds / 3
        except Exception as error:  # the lease is not renewed from here on
            note_error(self._host.service, "the lease is no longer renewed", error)
            context.request_stop(StopReason.LEASE_LOST)
        finally:
            fence.cancel()

    async def _notified(self, key: str, done: asyncio.Event, woken: Subscription, seconds: float) -> None:
        """Wait for `seconds`, for `done`, or for a notification about this attempt (an empty payload concerns all)."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not done.is_set() and (left := until - loop.time()) > 0:
            waiting = asyncio.ensure_future(woken.wait(left))
            await first_of(done.wait(), asyncio.wait({waiting}))
            if waiting.done() and {"", key} & set(waiting.result()):
                return
            waiting.cancel()

    async def _leave(self, keeping: "asyncio.Task[None]") -> None:
        """Wait briefly for the renewal to end. One that hangs is not cancelled, since its connection would return to the pool in use."""
        await asyncio.wait({keeping}, timeout=_LEAVE_SECONDS)
        if not keeping.done():
            self._abandoned.add(keeping)
            keeping.add_done_callback(self._abandoned.discard)
