"""Runs further processes of one step below its child: each is a child as any other, and its worker is the step's first process.

They end with the first process, whatever ends it. If one of them ends with a fault, or without a word, the first process
reports that fault and ends with all of them, since the others would wait for it for ever.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from schemas.jobs import StepFault
from services.chassis.executor.child import Context, Stopping, UserFault
from services.chassis.executor.messages import (
    CHANNEL_VARIABLE,
    MESSAGE,
    ChildTask,
    FaultMessage,
    FinalMessage,
    RunningMessage,
    UnwritableMessage,
)
from services.chassis.executor.oom import fault_of_exit, oom_kills

_SETTLE_SECONDS = 0.5
"""After one process has ended, the others that it takes along have this time; the fault that explains most is reported."""
_LOST_SECONDS = 5.0
"""An error of the first process may be the loss of another one, which is noticed within this time."""
_END_SECONDS = 30.0
_OF_THE_FIRST: Mapping[str, object] = {"lease_seconds": None, "event_files": None, "measurements": False}
"""Only the first process has a lease, and only it tells what was measured."""
_TELLING = ("user", "memory")
"""Causes that explain the errors of the other processes."""


@contextlib.contextmanager
def ranks(context: Context, module: str) -> Iterator[None]:
    """Within this block `python -m module` runs once for each process of the task besides this one, which is the first.

    Each gets the task with its own `rank`. Call it in the main thread: they end when the thread that started them ends.
    """
    task = context.task
    if task.processes == 1 or task.rank > 0:
        yield
        return
    group = _Group(context)
    try:
        group.start(module)
        yield
        group.wait()
    except (Stopping, UserFault):
        raise
    except BaseException as error:
        if context.stopping:  # others may have been stopped too, before they were ready for it
            raise Stopping from error
        group.end_if_one_is_lost()
        raise
    finally:
        group.kill()


class _Group:
    """The processes besides the first."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._all: list[_Process] = []
        self._over = False
        self._lock, self._lost = threading.Lock(), threading.Event()
        self._faults: list[StepFault] = []

    def start(self, module: str) -> None:
        """Start them all, and watch each in a thread of its own."""
        task = self._context.task
        for rank in range(1, task.processes):
            process = _Process(module, task.model_copy(update={"rank": rank, **_OF_THE_FIRST}))
            self._all.append(process)
            threading.Thread(target=self._watch, args=(process,), name=f"rank-{rank}", daemon=True).start()

    def _watch(self, process: "_Process") -> None:
        fault = process.fault()
        if fault is None or self._over or self._context.stopping:
            return
        with self._lock:
            self._faults.append(fault)
        self._lost.set()
        time.sleep(_SETTLE_SECONDS)
        with self._lock:  # kept: the first that comes here ends this process
            if not self._over:
                self._context.fail(min(self._faults, key=lambda found: found.cause not in _TELLING))

    def end_if_one_is_lost(self) -> None:
        """Let the watching thread end this process with the true reason, if a lost process is the reason of an error here."""
        if self._lost.wait(_LOST_SECONDS):
            time.sleep(_LOST_SECONDS)

    def wait(self) -> None:
        """Wait until all have ended by themselves; they have nothing to report."""
        self._over = True
        until = time.monotonic() + _END_SECONDS
        for process in self._all:
            process.wait(max(0.0, until - time.monotonic()))

    def kill(self) -> None:
        """Kill those that still run."""
        self._over = True
        for process in self._all:
            process.kill()


class _Process:
    """One process besides the first, with its pipes."""

    def __init__(self, module: str, task: ChildTask) -> None:
        self._name = f"process {task.rank + 1} of {task.processes}"
        self._killed_before = oom_kills()
        ours, theirs = os.pipe()
        self._messages = os.fdopen(ours, "rb")
        try:
            environment = {**os.environ, CHANNEL_VARIABLE: str(theirs)}
            self._process = subprocess.Popen(
                [sys.executable, "-m", module], stdin=subprocess.PIPE, pass_fds=(theirs,), env=environment
            )
        finally:
            os.close(theirs)
        if self._process.stdin is not None:
            self._process.stdin.write(task.model_dump_json().encode() + b"\n")
            self._process.stdin.flush()

    def fault(self) -> StepFault | None:
        """Wait for the process to end; returns its fault, None where it did its share or was asked to stop."""
        final = self._final()
        returncode = self._process.wait()
        match final:
            case FaultMessage(fault=fault) if fault.cause == "user":
                return fault
            case FaultMessage(fault=fault):
                pass
            case UnwritableMessage(unwritable=found):
                fault = StepFault(cause="infrastructure", message=f"it could not write: {found.said}")
            case None:
                fault = fault_of_exit(returncode, self._killed_before, oom_kills())
            case _:
                return None
        return fault.model_copy(update={"message": f"{self._name}: {fault.message}"})

    def _final(self) -> FinalMessage | None:
        with self._messages:
            for line in self._messages:
                with contextlib.suppress(ValidationError):  # a library may write there
                    message = MESSAGE.validate_json(line)
                    if not isinstance(message, RunningMessage):
                        return message
        return None

    def wait(self, seconds: float) -> None:
        """Wait for its end, at most so long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def kill(self) -> None:
        """Kill it where it runs."""
        self._process.kill()
        self._process.wait()
