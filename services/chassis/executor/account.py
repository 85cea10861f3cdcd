"""Keeps one account of what the executors of a machine use together: trainer, feedback service and registry, in any number of processes.

Every attempt that runs has a file that its worker and the attempt's process hold locked. The kernel ends the lock with the last of them,
kill -9 included, so what is counted is what runs. Claims of a machine take turns under one lock. A file that cannot be read or written
raises, so that nothing is claimed in doubt.
"""

import asyncio
import fcntl
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from schemas.base import Frozen
from services.chassis.executor.slots import Counted

_Line = TypeVar("_Line", bound="Line")
_Found = TypeVar("_Found")
_WAIT_SECONDS = 10.0
_TRY_SECONDS = 0.02
_STALE_SECONDS = 15.0
"""A wish that was not renewed for this time does not count: its process claims nothing now."""
_PASSES = 1
"""So often is a wish passed over by other services; then what it needs is kept free."""


class AccountFault(Exception):
    """The account of this machine cannot be used; the message says which file and what to do."""


class Line(Frozen):
    """What a service counts on this machine; read by other versions of this code, so fields are only added, with defaults."""

    service: str = Field(description="Name of the service.")
    cores: int = Field(ge=0, description="Cores.")
    memory_mb: int = Field(ge=0, description="Main memory.")
    device_mb: int = Field(default=0, ge=0, description="Memory of each of its GPUs.")
    gpus: tuple[int, ...] = Field(default=(), description="Numbers of its GPUs.")


class Wish(Line):
    """What the first waiting attempt of a service needs that did not fit."""

    since: float = Field(description="Unix time since which it waits.")
    renewed: float = Field(description="Unix time at which it was last found to wait.")
    passed: int = Field(default=0, ge=0, description="How often other services claimed something meanwhile.")


class Account:
    """The account of one machine, in the folder, as one service sees it."""

    def __init__(self, folder: Path, service: str, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._service, self._clock = folder, service, clock
        self._lines, self._wishes = folder / "running", folder / "waiting"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="account")

    async def aside(self, do: Callable[[], _Found]) -> _Found:
        """Run what reads or writes the files of the account in a thread of its own: who holds the lock of the machine does not wait behind
        the digests and copies in the threads that its process shares."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, do)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Within this block no other process of this machine claims. Raises AccountFault if one keeps the lock for too long."""
        descriptor = await self.aside(self._open)
        try:
            for _ in range(round(_WAIT_SECONDS / _TRY_SECONDS)):
                if _locked(descriptor):
                    break
                await asyncio.sleep(_TRY_SECONDS)
            else:
                raise AccountFault(
                    f"a process has held {self._folder / 'lock'} for {_WAIT_SECONDS:g} s; find it with `fuser` and continue or end it"
                )
            yield
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        for folder in (self._lines, self._wishes):
            folder.mkdir(parents=True, exist_ok=True)
        return os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)

    def others(self) -> Sequence[Counted]:
        """Return what other services count: what they run, and what is kept for those that waited longer than this one."""
        own = self._wish(self._service)
        since = float("inf") if own is None else own.since
        kept = [wish for wish in self._waiting() if wish.passed >= _PASSES and wish.since < since]
        return [_counted(line) for line in (*self._running(), *kept)]

    def take(self, counted: Counted) -> int:
        """Count an attempt of this service that was claimed. Returns a descriptor: the attempt counts until every process that has it
        open has closed it or ended."""
        line = Line(service=self._service, **counted._asdict())
        descriptor = os.open(self._lines / secrets.token_hex(8), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(descriptor, line.model_dump_json().encode())
            if counted.cores or counted.device_mb:
                self.wish(None)
                self._pass_over()
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _pass_over(self) -> None:
        for wish in self._waiting():
            self._write(wish.model_copy(update={"passed": wish.passed + 1}))

    def wish(self, counted: Counted | None) -> None:
        """Say what the first waiting attempt of this service needs, or that none waits."""
        if counted is None:
            self._file(self._service).unlink(missing_ok=True)
            return
        now, before = self._clock(), self._wish(self._service)
        wish = Wish(service=self._service, since=now, renewed=now, **counted._asdict())
        self._write(wish if before is None else wish.model_copy(update={"since": before.since, "passed": before.passed}))

    def _running(self) -> list[Line]:
        """Return the lines of other services whose processes live, and remove those of which none does."""
        found = []
        for path in self._lines.iterdir():
            with suppress(FileNotFoundError):
                if (line := _held_line(path)) is not None and line.service != self._service:
                    found.append(line)
        return found

    def _waiting(self) -> list[Wish]:
        """Return the wishes of other services that still claim."""
        names = [path.name for path in self._wishes.iterdir() if path.name != self._service and not path.suffix]
        found = [wish for wish in map(self._wish, names) if wish is not None]
        return [wish for wish in found if wish.renewed >= self._clock() - _STALE_SECONDS]

    def _wish(self, service: str) -> Wish | None:
        with suppress(FileNotFoundError):
            return _read(self._file(service), Wish)
        return None

    def _write(self, wish: Wish) -> None:
        path = self._file(wish.service)
        new = path.with_suffix(".new")
        new.write_text(wish.model_dump_json(), encoding="utf-8")
        new.replace(path)

    def _file(self, service: str) -> Path:
        return self._wishes / service


def _locked(descriptor: int) -> bool:
    """Lock an open file, unless another one has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _held_line(path: Path) -> Line | None:
    """Return the line of an attempt that a process holds; if none does, remove it."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        if _locked(descriptor):
            path.unlink(missing_ok=True)
            return None
        return _read(path, Line)
    finally:
        os.close(descriptor)


def _read(path: Path, kind: type[_Line]) -> _Line:
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        what = f"{path} does not say what an attempt uses, so no step is started"
        raise AccountFault(f"{what}; end the process that holds it (`fuser {path}`), then remove it") from error


def _counted(line: Line) -> Counted:
    return Counted(line.cores, line.memory_mb, line.device_mb, line.gpus)
