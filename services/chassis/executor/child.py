"""Runs one task in a child process, which sends progress and one final message over a pipe and ends when its worker is gone.

Standard output and error are left to libraries and go to the attempt's log. SIGTERM asks to checkpoint and stop. When the
worker is gone, or does not renew its lease, the child ends with all processes that it started, so that the next holder of the
lease works alone.
"""

import atexit
import contextlib
import ctypes
import errno
import faulthandler
import logging
import math
import os
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import psutil

from schemas.base import EventData
from schemas.jobs import StepFault, StepResult
from schemas.progress import StepProgressed
from schemas.reasons import Reason
from services.chassis.executor.erased_inputs import without_erased
from services.chassis.executor.inputs import corrupt_input
from services.chassis.executor.messages import (
    CHANNEL_VARIABLE,
    CHECKPOINT,
    LEASE_EXPIRED,
    STACK_DUMP,
    ChildTask,
    FaultMessage,
    FinalMessage,
    MeasuredMessage,
    ProgressMessage,
    ResultMessage,
    RunningMessage,
    StoppedMessage,
    UnwritableMessage,
)
from services.chassis.executor.series import Series, TimedSeries
from services.chassis.executor.text import storable, storable_reasons
from services.chassis.process.redaction import redact_output
from services.chassis.storage.artifacts.store import ArtifactStore
from services.chassis.storage.stores import Unwritable, unwritable

__all__ = ("ChildTask", "Context", "MemoryFault", "Stopping", "UserFault", "run_child")

_PROGRESS_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1
_MESSAGE_LIMIT = 4000
_OOM_SCORE = 500
_NO_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "Cannot allocate memory")
"""What PyTorch says if it cannot allocate memory or map a file into it."""


Observer = Callable[[int, Mapping[str, float]], None]
"""Is called with the number of a step and its measurements by name."""


class UserFault(Exception):
    """The request or its data are at fault; the step fails without a retry until somebody corrects the reasons."""

    def __init__(self, *reasons: Reason) -> None:
        super().__init__("; ".join(str(reason) for reason in reasons))
        self.reasons = reasons


class MemoryFault(Exception):
    """Memory did not suffice; the next attempt gets this as `memory_failures` and works in smaller pieces."""


class Stopping(BaseException):
    """The handler ends early because `Context.stopping` was set; raise it when the checkpoint is written."""


class Context:
    """The task, store, progress and stop signal that a handler gets."""

    def __init__(self, task: ChildTask, channel: "Channel") -> None:
        self.task = task
        self._channel = channel
        self._sent_at = 0.0
        self._began: tuple[float, int, int, str] | None = None
        """Time, units done, total units and unit of the phase's first report, from which the ETA is computed."""
        self._latest = (0, 1, "steps")
        self._losses = Series()
        self._started_at = time.monotonic()
        self.memory = TimedSeries()
        """Resident memory of this process in bytes, whenever progress was reported."""
        self.speed = TimedSeries()
        """Tokens per second, alike."""
        self._observers: list[Observer] = []
        self._stop, self._checkpoint = threading.Event(), threading.Event()

    @cached_property
    def store(self) -> ArtifactStore:
        """The artifact store."""
        return ArtifactStore(self.task.artifacts)

    @property
    def stopping(self) -> bool:
        """Whether to checkpoint and raise Stopping now."""
        return self._stop.is_set()

    def checkpoint_due(self) -> bool:
        """Whether somebody asked for a checkpoint since the last call; a handler without checkpoints need not call it."""
        due = self._checkpoint.is_set()
        self._checkpoint.clear()
        return due

    def ask_for_checkpoint(self) -> None:
        """Ask the handler to write a checkpoint and go on."""
        self._checkpoint.set()

    def stop(self) -> None:
        """Ask the handler to end."""
        self._stop.set()

    def observe(self, observer: Observer) -> None:
        """Let `observer` be called with the measurements of every step from now on."""
        self._observers.append(observer)

    def measured(self, step: int, values: Mapping[str, float]) -> None:
        """Tell the observers what was measured at a step, and the worker if it wants to know."""
        if self.task.measurements:
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            self._channel.send(MeasuredMessage(step=step, values=finite))
        for observer in self._observers:
            observer(step, values)

    def resumed(self, losses: Iterable[float]) -> None:
        """Begin the course of the loss again with the losses of the steps that are done already."""
        self._losses = Series()
        for loss in losses:
            self._losses.add(loss)

    def progress(
        self,
        done: int,
        of: int,
        unit: str = "steps",
        *,
        loss: float | None = None,
        learning_rate: float | None = None,
        tokens_per_second: float | None = None,
        gradient_norm: float | None = None,
    ) -> None:
        """Report progress; call it with every loss, since at most one report a second is sent."""
        if loss is not None:
            self._losses.add(loss)
        now = time.monotonic()
        self._latest = (done, of, unit)
        if self._began is None or self._began[2:] != (of, unit) or done < self._began[1]:
            self._began = (now, done, of, unit)
        if now - self._sent_at < _PROGRESS_SECONDS:
            return
        self._sent_at = now
        began_at, done_then, *_ = self._began
        gained = done - done_then
        memory = psutil.Process().memory_info().rss
        self.memory.add(now - self._started_at, memory)
        if tokens_per_second is not None:
            self.speed.add(now - self._started_at, tokens_per_second)
        report = StepProgressed(
            job_id=self.task.job_id,
            step=self.task.step,
            attempt=self.task.attempt,
            kind=self.task.kind,
            done=done,
            of=of,
            unit=unit,
            loss=loss,
            learning_rate=learning_rate,
            tokens_per_second=tokens_per_second,
            memory_bytes=memory,
            eta_seconds=(now - began_at) / gained * max(0, of - done) if gained > 0 else None,
            gradient_norm=gradient_norm,
            losses=self._losses.means,
        )
        self._channel.send(ProgressMessage(progress=report))

    def alive(self) -> None:
        """Report the latest progress again, while something outside this process is awaited."""
        self.progress(*self._latest)

    def fail(self, fault: StepFault) -> NoReturn:
        """Report a fault that another thread of this process has noticed, and end with all processes that it started."""
        self._channel.send(FaultMessage(fault=fault))
        _end_with(1)


Handler = Callable[[Context], StepResult | tuple[StepResult, Sequence[EventData]]]


def run_child(handlers: Mapping[str, Handler]) -> NoReturn:
    """The main of a service's child module: reads the task, runs the handler of its kind, sends the final message and exits."""
    redact_output()
    faulthandler.register(STACK_DUMP, file=2, all_threads=True)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for talkative in ("httpx2", "openai"):  # a line per request would push the reason out of the log's tail
        logging.getLogger(talkative).setLevel(logging.WARNING)
    descriptor = os.environ.pop(CHANNEL_VARIABLE, None)
    if descriptor is None:
        sys.exit(f"{CHANNEL_VARIABLE} is not set: a worker starts this module, it cannot be started by hand")
    channel = Channel(int(descriptor))
    die_with_worker()
    given = sys.stdin.buffer.readline()
    if not given:  # the worker is gone, or waits no longer
        _end()
    task = ChildTask.model_validate_json(given)
    context = Context(task, channel)
    watching = (task.lease_seconds, context.ask_for_checkpoint)
    threading.Thread(target=watch_worker, args=watching, name="watch-worker", daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: context.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    final = _final_message(handlers, context)
    channel.send(final)
    _leave(1 if isinstance(final, FaultMessage) else 0)


def _leave(code: int) -> NoReturn:
    """Exit without taking the interpreter apart: that takes as long as a short step, and makes a fork copy every object that it shares."""
    threading._shutdown()  # type: ignore[attr-defined]  # as multiprocessing does it
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # what lasts is written, and the worker kills what is left of the process group


def _final_message(handlers: Mapping[str, Handler], context: Context) -> FinalMessage:
    try:
        handler = handlers.get(context.task.kind)
        if handler is None:
            raise LookupError(f"no handler for steps of kind {context.task.kind}; known are {', '.join(handlers)}")
        context.task, erased = without_erased(context.task)
        for said in erased.values():
            logging.getLogger(__name__).warning("%s", said)
        made = handler(context)
    except Stopping:
        return StoppedMessage()
    except UserFault as fault:
        if (cause := fault.__cause__) is not None:  # from a library
            if found := _unwritable(cause, context.task):
                return UnwritableMessage(unwritable=found)
            if _is_memory(cause):  # a model that could not be loaded for it is no fault of the request
                return FaultMessage(fault=StepFault(cause="memory", message=_shown(cause)))
        return FaultMessage(fault=StepFault(cause="user", message=_shown(fault), reasons=storable_reasons(fault.reasons)))
    except BaseException as error:
        with contextlib.suppress(OSError):  # the log may have no room
            traceback.print_exc()
        if found := _unwritable(error, context.task):
            return UnwritableMessage(unwritable=found)
        if corrupt := corrupt_input(error, context.task.inputs):
            return FaultMessage(fault=corrupt)
        kind = "memory" if _is_memory(error) else "infrastructure"
        return FaultMessage(fault=StepFault(cause=kind, message=f"{type(error).__name__}: {_shown(error)}"))
    result, events = made if isinstance(made, tuple) else (made, ())
    return ResultMessage.of(result.model_copy(update={"facts": {**result.facts, **erased}}) if erased else result, events)


def _unwritable(error: BaseException, task: ChildTask) -> Unwritable | None:
    found = unwritable(error, (*task.folders, Path(tempfile.gettempdir())))
    return found and found.model_copy(update={"said": storable(found.said)[:_MESSAGE_LIMIT]})


def _shown(error: BaseException) -> str:
    return storable(str(error))[:_MESSAGE_LIMIT]


def _is_memory(error: BaseException | None) -> bool:
    """Whether `error` or one of its causes says that memory ran out, on the host or (as PyTorch's OutOfMemoryError) on a device."""
    while error is not None:
        if isinstance(error, MemoryError | MemoryFault) or type(error).__name__ == "OutOfMemoryError":
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        if isinstance(error, RuntimeError) and any(said in str(error) for said in _NO_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


class Channel:
    """The child's end of the pipe; it writes each message completely, or the child ends."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, message: RunningMessage | FinalMessage) -> None:
        """Write one message; blocks while the pipe is full. If the worker has closed the pipe, the child ends."""
        line = memoryview(message.model_dump_json().encode() + b"\n")
        with self._lock:
            while line:
                try:
                    line = line[os.write(self._descriptor, line) :]
                except BrokenPipeError:
                    _end()


def die_with_parent() -> None:
    """On Linux, let the kernel kill this process with the thread that started it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def die_with_worker() -> None:
    """On Linux, let the kernel kill this process with the thread that started it, and first when memory runs out."""
    die_with_parent()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))


def watch_worker(seconds: float | None, ask_for_checkpoint: Callable[[], None]) -> None:
    """End the child when its worker has ended or has not renewed the lease for `seconds`; None waits for ever.

    The worker keeps our standard input open while it lives, and writes to it whenever it has renewed the lease, or to ask for a
    checkpoint. A frozen worker cannot renew it: then another worker has the step, or soon will.
    """
    descriptor = sys.stdin.fileno()
    while True:
        heard, _, _ = select.select([descriptor], [], [], seconds)
        if not heard:
            print("the worker did not renew the lease in time; ending", file=sys.stderr)  # noqa: T201 (the attempt's log)
            _end_with(LEASE_EXPIRED)
        said = os.read(descriptor, 4096)
        if not said:
            _end()
        if CHECKPOINT in said:
            ask_for_checkpoint()


def _end_with(code: int) -> NoReturn:
    """Kill all processes that this one started, then exit with `code`."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    os._exit(code)


def _end() -> NoReturn:
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
