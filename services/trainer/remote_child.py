"""Runs a step's child on a node of a Ray cluster; the trainer's host calls its methods, several at a time."""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, NamedTuple

from schemas.jobs import StepFault
from services.chassis.executor.messages import CHANNEL_VARIABLE
from services.chassis.executor.oom import fault_of_exit, oom_kills


class Said(NamedTuple):
    """What came of the child: one of its messages, some output, or, at last, how it ended."""

    message: bytes = b""
    output: bytes = b""
    returncode: int | None = None
    fault: StepFault | None = None
    """What it died of; set with `returncode`."""


class RemoteChild:
    """The actor. Its process takes the child along when it ends, as the child's worker does elsewhere."""

    def __init__(self, module: str, task: bytes, environment: Mapping[str, str]) -> None:
        self._killed_before = oom_kills()
        self._said: queue.SimpleQueue[Said] = queue.SimpleQueue()
        ours, theirs = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                pass_fds=(theirs,), start_new_session=True, env={**os.environ, **environment, CHANNEL_VARIABLE: str(theirs)},
            )  # fmt: skip
        finally:
            os.close(theirs)
        self.tell(task)
        threading.Thread(target=self._read, args=(os.fdopen(ours, "rb"),), daemon=True).start()

    def said(self, seconds: float) -> Sequence[Said]:
        """Return all that came since the last call, as soon as there is something, or after `seconds`."""
        found: list[Said] = []
        try:
            found.append(self._said.get(timeout=seconds))
            while True:
                found.append(self._said.get_nowait())
        except queue.Empty:
            return found

    def tell(self, data: bytes) -> None:
        """Write to the child's standard input, as its worker does: a heartbeat, or that a checkpoint is wanted."""
        if self._process.stdin is not None and self._process.poll() is None:
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def signal(self, number: int) -> None:
        """Send a signal to the child; a request for stacks goes to all its processes."""
        if self._process.poll() is None:
            (self._process.send_signal if number == signal.SIGTERM else self._to_all)(number)

    def _to_all(self, number: int) -> None:
        os.killpg(self._process.pid, number)

    def _read(self, messages: IO[bytes]) -> None:
        """Pass on messages and output to the end of the child."""
        output = threading.Thread(target=self._read_output, daemon=True)
        output.start()
        with messages:
            for line in messages:
                self._said.put(Said(message=line))
        returncode = self._process.wait()
        output.join(timeout=1.0)
        self._said.put(Said(returncode=returncode, fault=fault_of_exit(returncode, self._killed_before, oom_kills())))

    def _read_output(self) -> None:
        output = self._process.stdout
        while output is not None and (data := output.read1(65536)):  # type: ignore[attr-defined]  # it is buffered
            self._said.put(Said(output=data))
