"""Starts the children of a runner as forks of a warm process, which has imported what they need: that is most of what a short step costs.

The warm process starts with the first step, and ends with the service or when nothing has run for a while, so that its memory is given back.
Where it cannot be used a child is started by itself, and nothing else is different.
"""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from services.chassis.executor.forked import ForkedProcess, forked
from services.chassis.executor.messages import ORDERS_VARIABLE
from services.chassis.executor.text import tail_of
from services.chassis.process.logging import get_logger
from services.chassis.process.transient import wait_or_stop

_log = get_logger(__name__)
POSSIBLE = sys.platform == "linux" and hasattr(os, "pidfd_open")
"""On macOS frameworks do not survive a fork, and no kernel but Linux ends a process with its parent."""
_END_SECONDS = 10.0
_REAP_SECONDS = 5.0
_TRIES = 3
"""After so many warm processes in a row that forked nothing, all children are started by themselves."""


class Surroundings(NamedTuple):
    """What a fork cannot change any more, since imports have read it."""

    module: str
    environment: Mapping[str, str]
    folder: Path | None


class WarmProcess:
    """The warm process of a runner, and those before it whose children still run."""

    def __init__(self, idle_seconds: float) -> None:
        """`idle_seconds`: how long it waits for the next step; 0: there is none."""
        self._idle_seconds = idle_seconds
        self._origin: _Origin | None = None
        self._retired: list[_Origin] = []
        self._failures = 0
        self._closed = not POSSIBLE or not idle_seconds

    @property
    def pid(self) -> int | None:
        """Its process id; None while there is none."""
        self.reap()
        return None if self._origin is None else self._origin.pid

    async def fork(
        self, surroundings: Surroundings, changes: Mapping[str, str], output: int, kept: Sequence[int]
    ) -> ForkedProcess | None:
        """Return a child as `forked` does; None if there is none, since the warm process failed: then the next one gets another."""
        if self._closed or self._failures >= _TRIES:
            return None
        origin = self._with(surroundings)
        try:
            child = await origin.fork(changes, output, kept)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            self._failures += not origin.has_forked
            _log.warning("the warm process forked no child", error=repr(error), output=origin.last_words())
            self._retire(origin)
            return None
        self._failures = 0
        return child

    def _with(self, surroundings: Surroundings) -> "_Origin":
        """Return the process with these surroundings, a new one if there is none."""
        self.reap()
        if self._origin is not None and self._origin.surroundings != surroundings:
            self._retire(self._origin)
        if self._origin is None:
            self._origin = _Origin(surroundings, self._idle_seconds)
        return self._origin

    def _retire(self, origin: "_Origin") -> None:
        origin.retire()
        if origin is self._origin:
            self._origin = None
            self._retired.append(origin)

    def reap(self) -> None:
        """Forget the processes that have ended."""
        self._retired = [origin for origin in self._retired if not origin.has_ended()]
        if self._origin is not None and self._origin.has_ended():
            self._origin = None

    async def run(self, stop: asyncio.Event) -> None:
        """A loop of the service: once `stop` is set and the last child has ended, end the process."""
        while not stop.is_set():
            self.reap()
            await wait_or_stop(stop, _REAP_SECONDS)
        self._closed = True
        while any(origin.children for origin in self._all()):  # noqa: ASYNC110 (their ends move it)
            await asyncio.sleep(0.05)
        await asyncio.to_thread(self.end)

    def end(self) -> None:
        """End it, with its children if there are any; blocks for a moment."""
        for origin in self._all():
            origin.end()
        self._origin, self._retired = None, []

    def _all(self) -> "list[_Origin]":
        return self._retired + ([self._origin] if self._origin else [])


class _Origin:
    """One warm process."""

    def __init__(self, surroundings: Surroundings, idle_seconds: float) -> None:
        self.surroundings = surroundings
        self.children = 0
        """How many run or are ordered."""
        self.has_forked = False
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # it is closed with the process
        self._temporary = tempfile.TemporaryDirectory(prefix="neuroweaver-warm-")
        """What imports write there is removed with the process."""
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.setblocking(False)
        with theirs:
            own = {ORDERS_VARIABLE: f"{theirs.fileno()} {idle_seconds}", "TMPDIR": self._temporary.name}
            self._process = subprocess.Popen(
                [sys.executable, "-m", surroundings.module], stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output,
                pass_fds=(theirs.fileno(),), start_new_session=True, env={**surroundings.environment, **own},
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    async def fork(self, changes: Mapping[str, str], output: int, kept: Sequence[int]) -> ForkedProcess:
        """Return a child, as `forked` does."""
        self.children += 1
        try:
            child = await forked(self._orders, changes, output, kept)
        except BaseException:
            self._leave()
            raise
        self.has_forked = True
        child.when_ended(self._leave)
        return child

    def _leave(self) -> None:
        self.children -= 1

    def last_words(self) -> Sequence[str]:
        """Return the end of its output."""
        return () if self._output.closed else tail_of(self._output)

    def retire(self) -> None:
        """Give it no more orders, so that it ends with its last child. One that has none is killed, since it may hang."""
        self._orders.close()
        if not self.children:
            self._process.kill()

    def has_ended(self) -> bool:
        """Whether it has ended; then nothing of it is left."""
        if self._process.poll() is None:
            return False
        self._orders.close()
        self._output.close()
        self._temporary.cleanup()
        return True

    def end(self) -> None:
        """End it; blocks until it has ended."""
        self.retire()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.has_ended()
