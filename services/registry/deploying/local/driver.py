"""The driver `local`: checks a target, brings it to the process of its base model, asks it, and watches it until it is removed."""

import asyncio
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from services.chassis.process.logging import get_logger
from services.chassis.settings import ServiceSettings
from services.registry.deploying.driver import READY, Observed, ServingState, Slot, Target
from services.registry.deploying.faults import Died, Refused
from services.registry.deploying.files import Sources, TargetFiles, sources_of, verified
from services.registry.deploying.local.base import ProcessOptions, SharedBase
from services.registry.deploying.local.memory import admit_adapter
from services.registry.deploying.local.server import ModelServer
from services.registry.deploying.observing import first, seen
from services.registry.deploying.probing import probe

_log = get_logger(__name__)
_NEEDED = ("torch", "transformers", "peft")
_TRIES = 3
"""How often a process may die while a target is loaded or probed, before the target counts as what kills it."""


@dataclass(slots=True, eq=False)
class _Served:
    """A target, what is seen of it, and the task that serves it."""

    target: Target
    observed: Observed
    task: "asyncio.Task[None] | None" = None
    base: SharedBase | None = None
    deaths: int = field(default=0)

    def see(self, state: ServingState, reason: str, message: str = "", server: ModelServer | None = None) -> None:
        """Set what is observed; the time changes with state or reason."""
        now = seen(self.observed, state, reason, message, None if server is None else server.address)
        self.observed = now if server is None else replace(now, headers=server.headers)


class LocalDriver:
    """Serves targets by processes of this machine, see `services.registry.deploying.driver.Driver`."""

    def __init__(self, sources: Sources, options: ProcessOptions) -> None:
        self._sources, self._options = sources, options
        self._slots: dict[tuple[str, Slot], _Served] = {}
        self._bases: dict[str, SharedBase] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def ensure(self, target: Target) -> None:
        """Serve a target in its slot; return at once."""
        known = self._slots.get(target.place)
        if known is not None and known.target == target and known.observed.state not in ("failed", "draining"):
            return
        if known is not None:
            self._leave(known, 0.0 if known.observed.state == "failed" else self._options.patience.answer)
        served = self._slots[target.place] = _Served(target, first(target))
        served.task = asyncio.ensure_future(self._serve(served))

    async def observed(self) -> Sequence[Observed]:
        """Return every slot."""
        return [self._slots[place].observed for place in sorted(self._slots)]

    async def remove(self, deployment: str, slot: Slot, drain_seconds: float) -> None:
        """Stop serving a slot; return at once."""
        served = self._slots.get((deployment, slot))
        if served is None or served.observed.state == "draining":
            return
        served.see("draining", "Draining", "it answers what it has begun", served.base.server if served.base else None)
        self._leave(served, drain_seconds)

    async def stand_by(self, drain_seconds: float) -> None:
        """Stop serving every slot; return at once."""
        for deployment, slot in list(self._slots):
            await self.remove(deployment, slot, drain_seconds)

    async def close(self) -> None:
        """Stop everything."""
        tasks = [served.task for served in self._slots.values() if served.task is not None]
        for task in (*tasks, *self._leaving):
            task.cancel()
        await asyncio.gather(*tasks, *self._leaving, return_exceptions=True)
        await asyncio.gather(*(base.close() for base in self._bases.values()))
        self._slots.clear()
        self._bases.clear()

    def _leave(self, served: _Served, seconds: float) -> None:
        task = asyncio.ensure_future(self._left(served, seconds))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _left(self, served: _Served, seconds: float) -> None:
        """Let a target go: its name is unloaded if no other slot has it, its process ends with its last name."""
        if served.task is not None:
            served.task.cancel()
            await asyncio.gather(served.task, return_exceptions=True)
        await self._release(served, seconds)
        if self._slots.get(served.target.place) is served:
            del self._slots[served.target.place]

    async def _release(self, served: _Served, seconds: float) -> None:
        base, name, served.base = served.base, served.target.served, None
        if base is None:
            return
        base.names[name] -= 1
        if base.names[name] <= 0:
            del base.names[name]
            if (server := base.server) is not None:
                await server.unload(name, seconds)
        if not base.names:
            self._bases = {digest: kept for digest, kept in self._bases.items() if kept is not base}
            await base.close()

    async def _serve(self, served: _Served) -> None:
        """Serve a target for as long as this task runs; what cannot be served ends it."""
        try:
            _require_libraries()
            while True:
                await self._once(served)
        except Refused as refused:
            _log.warning("a version is not served", served=served.target.served, reason=refused.reason)
            served.see("failed", refused.reason, refused.message)
            await self._release(served, 0.0)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            _log.exception("a version is not served", served=served.target.served)
            served.see("failed", "DriverUnavailable", f"the driver failed ({type(error).__name__}); the log says more")
            await self._release(served, 0.0)

    async def _once(self, served: _Served) -> None:
        """Bring a target to a process and watch it until that ends. Raises Refused."""
        target = served.target
        try:
            if served.observed.reason != "Restarting":
                served.see("starting", "Verifying")
            files = await asyncio.to_thread(verified, target, self._sources)
            base = self._taken(served, files)
            server = await base.running(target.served)
            served.see("starting", "Loading")
            if files.kind == "adapter":
                await asyncio.to_thread(admit_adapter, files.base, target.served)
            await server.load(target.served, target.artifact.sha256, files.folder, files.kind)
            served.see("starting", "Probing")
            await probe(server, target.served, files.probes)
        except Died as died:
            served.deaths += 1
            if served.deaths >= _TRIES:
                what = f"{died.message}; that was {served.deaths} times in a row while {target.served} was loaded"
                raise Refused(died.reason, f"{what}; deploy another version, or look into the log") from died
            served.see("starting", "Restarting", died.message)
            return
        served.deaths = 0
        served.see("ready", READY, "", server)
        why = await server.ended()
        served.see("starting", "Restarting", why.message)

    def _taken(self, served: _Served, files: TargetFiles) -> SharedBase:
        """Return the base of a target, which counts it once."""
        if served.base is None:
            base = self._bases.get(files.digest) or SharedBase(files.base, files.digest, self._options)
            self._bases[files.digest] = served.base = base
            base.names[served.target.served] += 1
        return served.base


def local_driver(settings: ServiceSettings) -> LocalDriver:
    """Return the driver of a service: its artifacts, its cache, what its jobs may name, and logs beside those of steps."""
    return LocalDriver(sources_of(settings), ProcessOptions(settings.home.resolve() / "logs" / "serving"))


def _require_libraries() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        what = f"the local driver needs {', '.join(missing)}, which this installation lacks"
        raise Refused("DriverUnavailable", f"{what}: install neuroweaver[serving], or use a driver that serves elsewhere")
