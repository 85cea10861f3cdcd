"""A base model that slots share: its process, which is started when needed, again after it died, and ended with its last slot."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.registry.deploying.local.memory import admit_process
from services.registry.deploying.local.server import COMMAND, ModelServer, Patience


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits before a process is started again: each twice the one before, from the first to the longest."""

    first: float = 0.5
    longest: float = 30.0
    steady: float = 60.0
    """Seconds after which a process that died counts as the first to die."""

    def after(self, deaths: int) -> float:
        """Return the wait after so many deaths in a row."""
        return float(min(self.longest, self.first * 2 ** min(deaths - 1, 16))) if deaths else 0.0


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """How processes are started and how long they may take."""

    logs: Path
    """Folder of their logs, one for each base model, of its latest process."""
    patience: Patience = field(default_factory=Patience)
    backoff: Backoff = field(default_factory=Backoff)
    limits: Mapping[str, int] = field(default_factory=dict)
    """Fields of Start that are not its defaults."""
    command: Sequence[str] = COMMAND
    admit: Callable[[Path, str], None] = admit_process


class SharedBase:
    """The process of one base model."""

    def __init__(self, folder: Path, digest: str, options: ProcessOptions) -> None:
        self._folder, self._digest, self._options = folder, digest, options
        self._server: ModelServer | None = None
        self._starting = asyncio.Lock()
        self._deaths, self._began = 0, 0.0
        self.names: Counter[str] = Counter()
        """How many slots serve each name."""

    @property
    def server(self) -> ModelServer | None:
        """Its process, if one runs."""
        return self._server if self._server is not None and self._server.alive else None

    async def running(self, served: str) -> ModelServer:
        """Return its process, after it was started where none runs, and a wait where the last one died. Raises Refused or Died."""
        async with self._starting:
            if (server := self.server) is not None:
                return server
            loop = asyncio.get_running_loop()
            await self._buried(loop.time())
            await asyncio.sleep(self._options.backoff.after(self._deaths))
            await asyncio.to_thread(self._options.admit, self._folder, served)
            self._began = loop.time()
            self._deaths += 1  # until it has served for a while
            log = self._options.logs / f"{self._digest[:16]}.log"
            options = self._options
            self._server = await ModelServer.started(self._folder, log, options.patience, options.limits, options.command)
            return self._server

    async def _buried(self, now: float) -> None:
        """Forget the last process; one that served for long leaves no count of deaths."""
        if self._server is not None:
            await self._server.kill()
            self._server = None
        if now - self._began > self._options.backoff.steady:
            self._deaths = 0

    async def close(self) -> None:
        """End its process."""
        async with self._starting:
            if self._server is not None:
                await self._server.kill()
                self._server = None
