"""Watches the disk space of an executor's folders, so that its workers claim no attempt that would fail for lack of room.

A failed write is no outcome of an attempt. The work goes back to the queue, for any worker that has room; this process
claims it again when there is enough, or after a pause where it is unknown how much is enough.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from services.chassis.executor import metrics
from services.chassis.executor.folders import cache_of
from services.chassis.process.health import Health
from services.chassis.process.logging import get_logger
from services.chassis.process.transient import described, wait_or_stop
from services.chassis.settings import ServiceSettings
from services.chassis.storage.stores import Space, Unwritable, obstacle, space

CONDITION = "room"
"""Name of the health condition."""

_log = get_logger(__name__)
_LOOK_SECONDS = 5.0
_FIRST_SECONDS, _LIMIT_SECONDS = 5.0, 300.0
_SHOWN = 3
_MB = 10**6


@dataclass(frozen=True, slots=True)
class RefusedAttempt:
    """An attempt whose files could not be written here."""

    found: Unwritable
    times: int
    """How many times it could not be written."""
    at: float
    """Monotonic time of the last one, in seconds."""


def may_try(refusal: RefusedAttempt, now: float, free: int | None, reserve: int) -> bool:
    """Whether the attempt may be claimed again: there is enough room, and either more than before or a pause has passed."""
    wanted, then = refusal.found.wanted, refusal.found.free
    if free is not None and wanted is not None and free < wanted:
        return False
    more = free is not None and then is not None and free >= then + reserve
    return more or now >= refusal.at + min(_LIMIT_SECONDS, _FIRST_SECONDS * 2.0 ** min(refusal.times - 1, 30))


def folders_of(settings: ServiceSettings) -> tuple[Path, ...]:
    """The folders that an executor writes to on this machine."""
    home = settings.home.resolve()
    local = [Path(settings.artifacts_uri)] if settings.artifacts_uri.startswith("/") else []
    return (home, home / "checkpoints", home / "logs", home / "tmp", cache_of(home), *local)


class DiskSpace:
    """Disk space and refused attempts, shared by the workers of one process."""

    def __init__(
        self, settings: ServiceSettings, service: str, health: Health, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._service, self._health, self._clock = settings, service, health, clock
        self._reserve = settings.disk_reserve_mb * _MB
        self._refused: dict[str, RefusedAttempt] = {}
        self._short: tuple[Unwritable, ...] = ()
        health.requires = (*health.requires, CONDITION)

    @property
    def short(self) -> bool:
        """Whether no attempt may be begun, according to the last look."""
        return bool(self._short)

    async def run(self, stop: asyncio.Event) -> None:
        """Keep health and metrics up to date during long work."""
        while not stop.is_set():
            await self.look()
            await wait_or_stop(stop, _LOOK_SECONDS)

    async def look(self) -> tuple[str, ...]:
        """Measure the space; returns the keys of attempts that may not be claimed here now.

        `short` says whether others may be claimed.
        """
        spaces = await asyncio.to_thread(_spaces, folders_of(self._settings))
        self._short = _distinct(
            found if isinstance(found, Unwritable) else obstacle(folder, found, self._reserve)
            for folder, found in spaces.items()
        )
        for folder, found in spaces.items():
            if isinstance(found, Space):
                metrics.FREE.labels(self._service, str(folder)).set(found.free)
        frees = await asyncio.to_thread(_spaces, {Path(known.found.place) for known in self._refused.values()})
        waiting = []
        for key, refusal in self._refused.items():
            there = frees.get(Path(refusal.found.place))
            free = there.free if isinstance(there, Space) and refusal.found.free is not None else None
            if not may_try(refusal, self._clock(), free, self._reserve):
                waiting.append(key)
        self._say()
        return tuple(waiting)

    def refuse(self, key: str, found: Unwritable) -> None:
        """Store that this attempt's files could not be written."""
        known = self._refused.get(key)
        self._refused[key] = RefusedAttempt(found, known.times + 1 if known else 1, self._clock())
        metrics.POSTPONED.labels(self._service).inc()
        _log.warning("nothing can be written; the attempt's lease was released until there is disk space", why=str(found))
        self._say()

    @property
    def refused(self) -> tuple[str, ...]:
        """Keys of the attempts whose files this process could not write."""
        return tuple(self._refused)

    def forget(self, keys: Iterable[str]) -> None:
        """Drop attempts that have an outcome, or that another worker has taken."""
        if [key for key in keys if self._refused.pop(key, None)]:
            self._say()

    def _say(self) -> None:
        metrics.WAITING.labels(self._service).set(len(self._refused))
        reasons = [str(found) for found in self._short]
        reasons += [f"{key} waits: {known.found}" for key, known in list(self._refused.items())[:_SHOWN]]
        if self._health.report(CONDITION, not reasons, "; ".join(reasons)) and reasons:
            _log.error("not enough disk space", service=self._service, why=reasons)


def _spaces(folders: Iterable[Path]) -> dict[Path, Space | Unwritable]:
    found: dict[Path, Space | Unwritable] = {}
    for folder in folders:
        try:
            found[folder] = space(folder)
        except OSError as error:
            found[folder] = Unwritable(place=str(folder), why="the file system does not answer", said=described(error))
    return found


def _distinct(found: Iterable[Unwritable | None]) -> tuple[Unwritable, ...]:
    """Return one obstacle per reason and free space, since folders of one file system give the same answer."""
    kept: dict[tuple[str, int | None], Unwritable] = {}
    for one in found:
        if one is not None:
            kept.setdefault((one.why, one.free), one)
    return tuple(kept.values())
