"""The driver of slots that are served elsewhere: a task for each, which survives whatever the other side does.

Nothing that is served there ends with this process. What nobody wants any more is removed with its slot, or later as a leftover: after
a restart the reconciler asks for every wanted slot in its first pass, so that some passes later the rest is known to be unwanted.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from services.chassis.process.logging import get_logger
from services.chassis.process.transient import Backoff
from services.registry.deploying.driver import Observed, Slot, Target
from services.registry.deploying.faults import Away, Refused
from services.registry.deploying.observing import first
from services.registry.deploying.remote.backend import Backend, RemoteSlot

_log = get_logger(__name__)
_PASSES = 5
"""Looks of the reconciler after which every wanted slot was asked for."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the driver waits, in seconds."""

    again: float = 0.5
    """Before it tries again what was away; each wait is about twice the one before."""
    longest: float = 15.0
    sweep: float = 30.0
    """Between two looks for leftovers."""


class RemoteDriver:
    """Serves targets by a backend, see `services.registry.deploying.driver.Driver`."""

    def __init__(self, backend: Backend, pace: Pace | None = None) -> None:
        self._backend, self._pace = backend, pace or Pace()
        self._slots: dict[tuple[str, Slot], RemoteSlot] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._passes, self._swept = 0, 0.0
        self._sweeping: asyncio.Task[None] | None = None

    async def ensure(self, target: Target) -> None:
        """Serve a target in its slot; return at once."""
        known = self._slots.get(target.place)
        if known is not None and known.target == target and known.observed.state != "draining":
            if known.task is None or known.task.done():
                known.task = asyncio.ensure_future(self._serve(known))
            return
        slot = self._slots[target.place] = RemoteSlot(target, first(target))
        if known is not None:
            self._leave(known, 0.0)
        slot.task = asyncio.ensure_future(self._serve(slot))

    async def observed(self) -> Sequence[Observed]:
        """Return every slot; begin to look for leftovers when it is time."""
        self._passes += 1
        now = asyncio.get_running_loop().time()
        idle = self._sweeping is None or self._sweeping.done()
        if self._passes > _PASSES and idle and now >= self._swept + self._pace.sweep:
            self._swept, self._sweeping = now, asyncio.ensure_future(self._sweep())
        return [self._slots[place].observed for place in sorted(self._slots)]

    async def remove(self, deployment: str, slot: Slot, drain_seconds: float) -> None:
        """Stop serving a slot; return at once."""
        known = self._slots.get((deployment, slot))
        if known is None or known.observed.state == "draining":
            return
        seconds = drain_seconds if known.observed.address else 0.0
        known.see("draining", "Draining", "it answers what it has begun", known.observed.address, known.observed.called)
        self._leave(known, seconds)

    async def stand_by(self, drain_seconds: float) -> None:
        """Forget every slot; another process of the registry serves them."""
        del drain_seconds
        tasks = [slot.task for slot in self._slots.values() if slot.task is not None]
        tasks += [*self._leaving, *([] if self._sweeping is None else [self._sweeping])]
        self._slots.clear()
        self._passes, self._sweeping = 0, None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Forget every slot, and close the connections."""
        await self.stand_by(0.0)
        await self._backend.close()

    async def _serve(self, slot: RemoteSlot) -> None:
        """Serve a target for as long as this task runs; what cannot be served ends it."""
        backoff = Backoff(self._pace.again, self._pace.longest)
        while True:
            try:
                await self._backend.serve(slot)
                backoff.reset()
            except Refused as refused:
                _log.warning("a version is not served", served=slot.target.served, reason=refused.reason)
                slot.see("failed", refused.reason, refused.message)
                return
            except Away as away:
                if slot.observed.state == "ready":
                    backoff.reset()
                slot.see("failed", away.reason, away.message)
                await asyncio.sleep(backoff.next())
            except Exception as error:
                _log.exception("a version is not served", served=slot.target.served)
                slot.see("failed", "DriverUnavailable", f"the driver failed ({type(error).__name__}); the log says more")
                return

    def _leave(self, slot: RemoteSlot, seconds: float) -> None:
        task = asyncio.ensure_future(self._left(slot, seconds))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _left(self, slot: RemoteSlot, seconds: float) -> None:
        if slot.task is not None:
            slot.task.cancel()
            await asyncio.gather(slot.task, return_exceptions=True)
        await asyncio.sleep(seconds)
        if self._slots.get(slot.target.place) is slot:
            del self._slots[slot.target.place]
        name = self._backend.name(slot.target)
        if any(
            self._backend.name(other.target) == name for other in self._slots.values() if other.observed.state != "draining"
        ):
            return
        try:
            await self._backend.release(slot.target)
        except (Refused, Away) as fault:
            _log.warning("a version that nobody wants is still loaded", served=slot.target.served, error=fault.message)

    async def _sweep(self) -> None:
        try:
            await self._backend.sweep([slot.target for slot in self._slots.values()])
        except (Refused, Away) as fault:
            _log.info("leftovers could not be looked for", error=fault.message)
