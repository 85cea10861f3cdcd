"""Runs long work in a child process, which may fail, hang or be killed without harm to the service that started it.

The child reads its task from standard input, which stays open while its worker lives; it reports over a separate pipe,
because libraries print to standard output; its output and error go to a log per attempt, and a fault includes the log's end.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from pydantic import ValidationError

from schemas.jobs import StepFault
from services.chassis.executor.folders import (
    UNFINISHED,
    cache_of,
    checkpoints_of,
    event_files_of,
    log_of,
    remove_empty,
    temporary_of,
)
from services.chassis.executor.forked import ForkedProcess
from services.chassis.executor.messages import (
    CHANNEL_VARIABLE,
    CHECKPOINT,
    LEASE_EXPIRED,
    MESSAGE,
    STACK_DUMP,
    ChildTask,
    FaultMessage,
    FinalMessage,
    MeasuredMessage,
    ProgressMessage,
    ResultMessage,
    StoppedMessage,
    UnwritableMessage,
)
from services.chassis.executor.oom import fault_of_exit, oom_kills
from services.chassis.executor.runner import Completed, Failed, Outcome, Postponed, Stopped, Work, WorkContext
from services.chassis.executor.text import tail
from services.chassis.executor.warm import Surroundings, WarmProcess
from services.chassis.kernel.aggregate import Decision
from services.chassis.process.logging import get_logger
from services.chassis.storage.stores import Unwritable, measured, obstacle, reason_in, space

Process = asyncio.subprocess.Process | ForkedProcess

_log = get_logger(__name__)
_LINE_LIMIT = 16 * 1024 * 1024
_KEPT_BACK = ("DATABASE_URL", "PASSWORD", "TRACKING_URI", "TRACKING_TOKEN")
_EXIT_SECONDS = 10.0
_FROZEN_SECONDS = 60.0
_DUMP_SECONDS = 2.0
"""Time for writing the stacks of a process that is ended because it hangs."""
_LONGEST_SLEEP = 3600.0
_LEAST_BYTES = 64 * 1024
"""With less free space than this a process cannot even write its error."""
_SPLIT = "train"
"""The kind of step that may be split over processes."""
_DRAIN_SHARE = 0.75
"""The child's share of the service's time for a drain; the rest is for releasing the lease."""


@dataclass(frozen=True)
class SubprocessRunner:
    """Runs `python -m module`, whose main is `child.run_child`, for each piece of work."""

    module: str
    processes: int = 1
    """How many processes a training is split over; the child starts the others."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that the process gets besides those of this one."""
    warm: WarmProcess | None = None
    """Forks the process where it can; without it each is started by itself."""
    shards: int = 1
    """How many processes share the weights of a training; 1: each of them holds all."""

    async def run(self, work: Work, context: WorkContext) -> Outcome:
        """Supervise one child to its end. Whether this returns or raises, no process of the child is left."""
        settings = context.settings
        log = log_of(settings.home, context.service, work.request.job_id, work.request.step, work.request.attempt)
        task, temporary = (
            _task(work, context, log, self.processes, self.shards),
            temporary_of(settings.home, context.service, work.lease),
        )
        killed_before, size_before = oom_kills(), _size(log)
        try:
            child = await Child.start(self, task, log, temporary, context)
            try:
                final = await child.supervise(context, settings.drain_seconds * _DRAIN_SHARE, settings.hung_seconds)
            finally:
                child.kill()
                await child.ended()
        finally:
            await asyncio.to_thread(_remove_unfinished, task.own_checkpoints, temporary)
        match final:
            case ResultMessage(result=result):
                return Completed(result, [Decision(work.ref, work.ref.key, data) for data in final.extra()])
            case FaultMessage(fault=fault):
                # a user fault gets no log: libraries print parts of the data there, and the reasons say everything
                shown = () if fault.cause == "user" else await asyncio.to_thread(tail, log)
                return Failed(fault.model_copy(update={"log_tail": shown}))
            case StoppedMessage():
                return Stopped()
            case UnwritableMessage(unwritable=found):
                return Postponed(await asyncio.to_thread(measured, found))
        if context.stop.is_set() or child.returncode in (-signal.SIGTERM, LEASE_EXPIRED):
            return Stopped()
        if child.was_frozen:
            message = f"the process was stopped (SIGSTOP) for {_FROZEN_SECONDS:g} s, so it was killed"
            return Failed(StepFault(cause="infrastructure", message=message))
        if child.was_hung:
            message = (
                f"the process reported no progress for {settings.hung_seconds:g} s, so it was ended; its log has its stacks"
            )
            return Failed(StepFault(cause="hung", message=message, log_tail=await asyncio.to_thread(tail, log)))
        fault = fault_of_exit(child.returncode, killed_before, oom_kills())
        if fault.cause != "memory" and (unwritable := await asyncio.to_thread(_why_unwritable, log, size_before, task)):
            return Postponed(unwritable)
        return Failed(fault.model_copy(update={"log_tail": await asyncio.to_thread(tail, log)}))


def _task(work: Work, context: WorkContext, log: Path, processes: int, shards: int = 1) -> ChildTask:
    asked, settings = work.request, context.settings
    return ChildTask(
        job_id=asked.job_id,
        step=asked.step,
        attempt=asked.attempt,
        kind=asked.kind,
        requester=asked.requester,
        settings=asked.settings,
        inputs=asked.inputs,
        results=asked.results,
        memory_failures=asked.memory_failures,
        artifacts=settings.artifacts_uri,
        checkpoints=checkpoints_of(settings.home, asked.job_id, asked.step),
        lease=work.lease,
        processes=processes if asked.kind == _SPLIT else 1,
        shards=shards,
        event_files=event_files_of(log),
        measurements=context.wants_measurements,
        lease_seconds=settings.lease_seconds,
        cache=cache_of(settings.home),
        memory_bytes=settings.slot_memory_mb and settings.slot_memory_mb * 2**20,
        allowed=settings.sources.allowed(settings.home, settings.cache),
    )


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the variables that give access to broker, database and tracking server, so that
    nothing in the child has them."""
    return {name: value for name, value in environment.items() if not name.endswith(_KEPT_BACK)}


def _folder() -> Path | None:
    try:
        return Path.cwd()
    except FileNotFoundError:  # somebody has removed it
        return None


async def _process(
    runner: SubprocessRunner, context: WorkContext, temporary: Path, output: int, kept: Sequence[int]
) -> Process:
    """Fork the process from the runner's warm one, or start it; the first of the descriptors that it keeps is its channel.

    A step on a GPU is never forked: its process must be the first to use CUDA, and it takes longer than its imports.
    """
    environment = {**child_environment(os.environ), **runner.environment}
    if runner.warm is not None and not context.gpus:
        surroundings = Surroundings(runner.module, environment, _folder())
        if forked := await runner.warm.fork(surroundings, {"TMPDIR": str(temporary)}, output, kept):
            return forked
    seen = ",".join(map(str, context.gpus))
    gpu = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": seen} if seen else {}
    own = {CHANNEL_VARIABLE: str(kept[0]), "TMPDIR": str(temporary), **gpu}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", runner.module, stdin=asyncio.subprocess.PIPE, stdout=output, stderr=output, pass_fds=tuple(kept),
        start_new_session=True, env={**environment, **own},
    )  # fmt: skip


def _remove_unfinished(checkpoints: Path, temporary: Path) -> None:
    """Remove the unfinished and temporary files of a run that has ended, and its folders if they are empty then."""
    for folder in (temporary, *checkpoints.glob(f"{UNFINISHED}*")):
        shutil.rmtree(folder, ignore_errors=True)
    remove_empty(checkpoints, levels=2)


def _size(log: Path) -> int:
    try:
        return log.stat().st_size
    except OSError:
        return 0


def _why_unwritable(log: Path, size_before: int, task: ChildTask) -> Unwritable | None:
    """Return why nothing could be written, if that is why a child sent no final message: its log says so, or the disk is
    full."""
    why = reason_in("\n".join(tail(log, since=size_before)))
    for folder in (log.parent, *task.folders):
        with contextlib.suppress(OSError):
            if found := obstacle(folder, space(folder), least=_LEAST_BYTES):
                return found.model_copy(update={"wanted": None, "said": "the process ended without a message"})
    return Unwritable(place=str(task.checkpoints), why=why, said="its log says so") if why else None


class Child:
    """One child process with its process group, pipe and log."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, pipe: asyncio.BaseTransport) -> None:
        self._process, self._reader, self._pipe = process, reader, pipe
        self._swept = False
        self.was_frozen = False
        """Whether it was killed because it had been stopped (SIGSTOP)."""
        self.was_hung = False
        """Whether it was killed because it reported no progress."""
        self._heard_at = 0.0

    @classmethod
    async def start(
        cls, runner: SubprocessRunner, task: ChildTask, log: Path, temporary: Path, context: WorkContext
    ) -> "Child":
        """Start the process and give it its task; `temporary` is its TMPDIR, and the context's GPUs are the only ones that it sees."""
        held = () if context.held is None else (context.held,)
        for folder in (log.parent, temporary):
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        reader = asyncio.StreamReader(limit=_LINE_LIMIT)
        ours, childs = os.pipe()
        try:
            pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", buffering=0)
            )
            try:
                with log.open("ab") as output:
                    process = await _process(runner, context, temporary, output.fileno(), (childs, *held))
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

    async def supervise(
        self, context: WorkContext, grace: float, hung_seconds: float = float("inf")
    ) -> FinalMessage | None:
        """Pass progress on until the process ends; returns its final message, or None where it ended without one.

        `context.stop` sends SIGTERM and, after `grace` seconds, SIGKILL; `context.lost` sends SIGKILL at once. A process
        that does not end after its final message, that was stopped (SIGSTOP), or that reports nothing for `hung_seconds`, is killed
        too, the last one after it has written its stacks to its log.
        """
        loop = asyncio.get_running_loop()
        context.on_renewal(self.beat)
        context.on_checkpoint(lambda: self._tell(CHECKPOINT))
        reading = asyncio.create_task(self._read(context))
        ended = asyncio.create_task(self._process.wait())
        stop, lost = asyncio.create_task(context.stop.wait()), asyncio.create_task(context.lost.wait())
        frozen, hung = asyncio.create_task(self._frozen()), asyncio.create_task(self._hung(hung_seconds))
        pending: set[asyncio.Task[object]] = {reading, ended, stop, lost, frozen, hung}
        kill_at: float | None = None
        try:
            while not ended.done():
                timeout = None if kill_at is None else max(0.0, kill_at - loop.time())
                done, pending = await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if {lost, frozen, hung} & done or not done:
                    found = {lost: "lease lost", frozen: "it was stopped", hung: "it reports no progress"}
                    why = next((said for task, said in found.items() if task in done), "it does not end")
                    _log.warning("killing the child", why=why)
                    self.kill()
                    await ended
                if stop in done and not ended.done():
                    self._signal(signal.SIGTERM)
                    kill_at = min(kill_at or float("inf"), loop.time() + grace)
                if reading in done:
                    kill_at = min(kill_at or float("inf"), loop.time() + _EXIT_SECONDS)
            self.kill()  # processes that it started may keep the pipe open
            await asyncio.wait({reading}, timeout=_EXIT_SECONDS)
            return reading.result() if reading.done() else None
        finally:
            for task in (reading, ended, stop, lost, frozen, hung):
                task.cancel()

    async def _read(self, context: WorkContext) -> FinalMessage | None:
        """Read messages up to the final one or the end of the pipe. A line that is no valid message is logged and skipped."""
        while True:
            try:
                line = await self._reader.readline()
                if not line:
                    return None
                message = MESSAGE.validate_json(line)
            except (ValidationError, ValueError) as error:
                _log.warning("a child wrote a line that is not a message", error=str(error)[:500])
                continue
            self._heard_at = asyncio.get_running_loop().time()
            match message:
                case ProgressMessage(progress=progress):
                    context.progress(progress)
                case MeasuredMessage(step=step, values=values):
                    context.measured(step, values)
                case _:
                    return message

    def kill(self) -> None:
        """Kill the process group. After the process has ended this is done only once, since its id may be reused soon."""
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

    def beat(self) -> None:
        """Write a heartbeat to the process: its lease was renewed."""
        self._tell(b"\n")

    def _tell(self, said: bytes) -> None:
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(said)

    async def _frozen(self) -> None:
        """Return when the process was stopped (SIGSTOP) and not continued for `_FROZEN_SECONDS`."""
        since: float | None = None
        loop = asyncio.get_running_loop()
        while since is None or loop.time() - since < _FROZEN_SECONDS:
            try:
                stopped = psutil.Process(self._process.pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
            except psutil.NoSuchProcess:
                stopped = False
            if stopped and since is None:
                _log.warning(
                    "the child was stopped (SIGSTOP); it is killed unless it is continued",
                    pid=self._process.pid,
                    seconds=_FROZEN_SECONDS,
                )
            since = (since or loop.time()) if stopped else None
            await asyncio.sleep(_FROZEN_SECONDS / 10)
        self.was_frozen = True

    async def _hung(self, seconds: float) -> None:
        """Return when the process has reported nothing for `seconds`, and has had a moment to write its stacks to its log."""
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        while (left := self._heard_at + seconds - loop.time()) > 0:  # noqa: ASYNC110 (progress moves the end)
            await asyncio.sleep(min(left, _LONGEST_SLEEP))
        self.was_hung = True
        for process in self._family():  # one after the other, since they write to one log
            with contextlib.suppress(psutil.Error):
                process.send_signal(STACK_DUMP)
                process.send_signal(signal.SIGCONT)
                await asyncio.sleep(_DUMP_SECONDS)

    def _family(self) -> list[psutil.Process]:
        """Return the child and the processes of its group that it has started, any of which may be the one that hangs."""
        try:
            child = psutil.Process(self._process.pid)
            return [child, *(other for other in child.children(recursive=True) if _group(other) == child.pid)]
        except psutil.Error:
            return []

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal; a stopped process is continued (SIGCONT), so that it gets the signal too."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)


def _group(process: psutil.Process) -> int | None:
    """Return the group of a process; None if it has ended."""
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None
