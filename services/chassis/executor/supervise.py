"""Why: long work runs in a child process that may fail, hang or be killed without harm to the service that started it.

The child reads its task from standard input, which stays open as the sign that its worker lives; it reports over a pipe of
its own, because libraries print to standard output; both its outputs go to a log per attempt, whose tail a fault carries.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from schemas.jobs import StepFault
from schemas.progress import StepProgressed
from services.chassis.aggregate import Decision
from services.chassis.executor.folders import cache_of, checkpoints_of, log_of
from services.chassis.executor.messages import (
    CHANNEL_VARIABLE,
    MESSAGE,
    FaultMessage,
    LastWord,
    ProgressMessage,
    ResultMessage,
    StoppedMessage,
    Task,
)
from services.chassis.executor.oom import oom_kills
from services.chassis.executor.runner import Completed, Failed, Outcome, Stopped, Work, WorkContext
from services.chassis.executor.text import tail
from services.chassis.logging import get_logger
from services.chassis.settings import ServiceSettings

_log = get_logger(__name__)
_LINE_LIMIT = 16 * 1024 * 1024
_FAREWELL_SECONDS = 10.0
_DRAIN_SHARE = 0.75
"""Of the service's grace for a drain: the rest is for giving the lease back."""


@dataclass(frozen=True)
class SubprocessRunner:
    """Runs `python -m module`, whose main is `child.run_child`, for each piece of work."""

    module: str

    async def run(self, work: Work, context: WorkContext) -> Outcome:
        """Supervise one child to its end. However this returns or raises, no process of the child is left."""
        settings = context.settings
        log = log_of(settings.home, context.service, work.request.job_id, work.request.step, work.request.attempt)
        killed_before = oom_kills()
        child = await Child.start(self.module, _task(work, settings), log)
        try:
            word = await child.supervise(context, settings.drain_seconds * _DRAIN_SHARE)
        finally:
            child.kill()
            await child.ended()
        match word:
            case ResultMessage(result=result):
                return Completed(result, [Decision(work.ref, work.ref.key, data) for data in word.extra()])
            case FaultMessage(fault=fault):
                return Failed(fault.model_copy(update={"log_tail": await asyncio.to_thread(tail, log)}))
            case StoppedMessage():
                return Stopped()
        if context.stop.is_set() or child.returncode == -signal.SIGTERM:
            return Stopped()
        fault = death(child.returncode, killed_before, oom_kills())
        return Failed(fault.model_copy(update={"log_tail": await asyncio.to_thread(tail, log)}))


def _task(work: Work, settings: ServiceSettings) -> Task:
    asked = work.request
    return Task(
        job_id=asked.job_id,
        step=asked.step,
        attempt=asked.attempt,
        kind=asked.kind,
        settings=asked.settings,
        inputs=asked.inputs,
        results=asked.results,
        memory_failures=asked.memory_failures,
        artifacts=settings.artifacts_uri,
        checkpoints=checkpoints_of(settings.home, asked.job_id, asked.step),
        lease=work.lease,
        cache=cache_of(settings.home),
    )


def death(returncode: int | None, killed_before: int | None, killed_after: int | None) -> StepFault:
    """The fault of a child that ended without a last word."""
    if returncode is None or returncode >= 0:
        return StepFault(cause="infrastructure", message=f"the process ended with exit code {returncode} and no result")
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    if returncode == -signal.SIGKILL and (killed_after or 0) > (killed_before or 0):
        return StepFault(cause="memory", message="the process was killed by the kernel because memory ran out (SIGKILL)")
    return StepFault(cause="infrastructure", message=f"the process was killed by {name} and left no result")


class Child:
    """One child process with its group, its pipe and its log."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, pipe: asyncio.BaseTransport
    ) -> None:
        self._process, self._reader, self._pipe = process, reader, pipe
        self._swept = False

    @classmethod
    async def start(cls, module: str, task: Task, log: Path) -> "Child":
        """Start the process and give it its task."""
        await asyncio.to_thread(log.parent.mkdir, parents=True, exist_ok=True)
        reader = asyncio.StreamReader(limit=_LINE_LIMIT)
        ours, childs = os.pipe()
        try:
            pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", buffering=0)
            )
            try:
                with log.open("ab") as output:
                    process = await asyncio.create_subprocess_exec(
                        sys.executable, "-m", module,
                        stdin=asyncio.subprocess.PIPE, stdout=output, stderr=output,
                        pass_fds=(childs,), env={**os.environ, CHANNEL_VARIABLE: str(childs)}, start_new_session=True,
                    )  # fmt: skip
            except BaseException:
                pipe.close()
                raise
        finally:
            os.close(childs)
        if process.stdin is not None:
            process.stdin.write(task.model_dump_json().encode() + b"\n")
        return cls(process, reader, pipe)

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.returncode

    async def supervise(self, context: WorkContext, grace: float) -> LastWord | None:
        """Pass progress on until the process ends; its last word, or None where it ended without one.

        `context.stop` sends SIGTERM and, after `grace` seconds, SIGKILL; `context.lost` sends SIGKILL at once. A process
        that does not end although it has said its last word is killed too.
        """
        loop = asyncio.get_running_loop()
        reading = asyncio.create_task(self._read(context.progress))
        ended = asyncio.create_task(self._process.wait())
        stop, lost = asyncio.create_task(context.stop.wait()), asyncio.create_task(context.lost.wait())
        pending: set[asyncio.Task[object]] = {reading, ended, stop, lost}
        kill_at: float | None = None
        try:
            while not ended.done():
                timeout = None if kill_at is None else max(0.0, kill_at - loop.time())
                done, pending = await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if lost in done or not done:
                    _log.warning("killing the child", why="lease lost" if lost in done else "it does not end")
                    self.kill()
                    await ended
                if stop in done and not ended.done():
                    self._signal(signal.SIGTERM)
                    kill_at = min(kill_at or float("inf"), loop.time() + grace)
                if reading in done:
                    kill_at = min(kill_at or float("inf"), loop.time() + _FAREWELL_SECONDS)
            self.kill()  # what it started may hold the pipe open
            await asyncio.wait({reading}, timeout=_FAREWELL_SECONDS)
            return reading.result() if reading.done() else None
        finally:
            for task in (reading, ended, stop, lost):
                task.cancel()

    async def _read(self, progress: Callable[[StepProgressed], None]) -> LastWord | None:
        """Messages until the last word or the end of the pipe. What is no message of ours is logged and passed over."""
        while True:
            try:
                line = await self._reader.readline()
                if not line:
                    return None
                message = MESSAGE.validate_json(line)
            except (ValidationError, ValueError) as error:
                _log.warning("a child wrote what is no message", error=str(error)[:500])
                continue
            if not isinstance(message, ProgressMessage):
                return message
            progress(message.progress)

    def kill(self) -> None:
        """Kill the process and all that it started. After its end once only: its number may belong to others soon."""
        if self._swept:
            return
        self._swept = self._process.returncode is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def ended(self) -> None:
        """Reap the process and close the pipe."""
        await self._process.wait()
        self._pipe.close()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
