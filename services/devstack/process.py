"""Starts, stops and kills one server under its guard, and reports the end of its log if it does not start."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

_GUARD = Path(__file__).with_name("guard.py")
_KEEP_LOG_BYTES = 10_000_000
_TAIL_LINES = 15


def open_log(path: Path) -> TextIO:
    """Open a log to append to, readable by its owner only; a long log is renamed first, and one old log is kept."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    if path.exists() and path.stat().st_size > _KEEP_LOG_BYTES:
        path.replace(path.with_suffix(".old.log"))
    path.touch(mode=0o600)
    path.chmod(0o600)
    return path.open("a")


def last_lines(log: Path) -> str:
    """Return the end of a log, for an error message."""
    lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:] if log.exists() else []
    return "\n".join([f" The last lines of {log}:", *lines])


class ServerFailure(Exception):
    """A server did not start or ended; the message has the last lines of its log."""


class ServerProcess:
    """One server as a child of a guard, in its own session, so that Ctrl-C does not reach it."""

    def __init__(
        self, name: str, log: Path, stop_signal: signal.Signals, *, grace: float = 20.0, inherit: Sequence[int] = ()
    ) -> None:
        self.name, self.log = name, log
        self._stop_signal, self._grace, self._inherit = stop_signal, grace, tuple(inherit)
        self._guard: subprocess.Popen[str] | None = None
        self.pid: int | None = None
        """Process id of the server itself while it runs."""

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start the command; its output goes to the log."""
        if self.running:
            raise ServerFailure(f"{self.name} is already running with pid {self.pid}")
        open_log(self.log).close()
        own = [sys.executable, "-I", "-S", str(_GUARD), str(self.log), str(int(self._stop_signal)), str(self._grace)]
        self._guard = subprocess.Popen(
            [*own, *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=None if environment is None else {**os.environ, **environment},
            start_new_session=True,
            pass_fds=self._inherit,
        )
        assert self._guard.stdout is not None
        line = self._guard.stdout.readline()
        if not line:
            self._reap()
            raise ServerFailure(f"{self.name} could not be started: {command[0]}")
        self.pid = int(line)

    @property
    def running(self) -> bool:
        """Whether the server is still running."""
        return self._guard is not None and self._guard.poll() is None

    def wait_ready(self, ready: Callable[[], bool], timeout: float = 60.0) -> None:
        """Return when `ready()`. Raises ServerFailure if the server ends first or takes longer than `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.running:
                self._reap()
                raise ServerFailure(f"{self.name} ended while it started.{last_lines(self.log)}")
            if time.monotonic() > deadline:
                self.stop()
                raise ServerFailure(f"{self.name} was not ready within {timeout:g} s.{last_lines(self.log)}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop cleanly, and return when the server has ended. Stopping twice is harmless."""
        if self._guard is not None:
            assert self._guard.stdin is not None
            self._guard.stdin.close()
            self._reap()

    def kill(self) -> None:
        """End the server with kill -9, as a crash would."""
        if self.running and self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            self._reap()

    def _reap(self) -> None:
        assert self._guard is not None
        self._guard.wait()
        for pipe in (self._guard.stdin, self._guard.stdout):
            if pipe is not None:
                pipe.close()
        self._guard = self.pid = None
