"""A child process for tests of supervision; the name of the step says how it behaves. Run as `python -m tests.child`."""

import contextlib
import errno
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

from schemas.base import EventData
from schemas.jobs import FeedbackRecorded, StepResult
from schemas.reasons import Reason
from services.chassis.executor.child import Context, MemoryFault, Stopping, UserFault, run_child
from services.chassis.executor.folders import UNFINISHED
from services.chassis.executor.forking import fork_children
from services.chassis.executor.ranks import ranks

IMPORTED = "IMPORTED"
"""The variable that says what a warm process imports, if not this module."""
Made = StepResult | tuple[StepResult, Sequence[EventData]]


def behave(context: Context) -> Made:
    """Run the behaviour that the step's name selects."""
    made: Made = globals()[context.task.step](context)
    return made


def complete(context: Context) -> Made:
    print("libraries print here")
    print("and here", file=sys.stderr)
    for number in range(100):
        context.progress(number, 100, "rows", loss=float("nan"))
    pids = {"pid": str(os.getpid()), "parent": str(os.getppid())}
    return StepResult(facts={**pids, "torch": str("torch" in sys.modules)}, metrics={"n": 1.0})


def surroundings(context: Context) -> Made:
    """Say what a process finds around it."""
    files = sorted(str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink())
    return StepResult(
        facts={
            "session": str(os.getsid(0) == os.getpgrp() == os.getpid()),
            "threads": " ".join(sorted(thread.name for thread in threading.enumerate())),
            "variables": " ".join(sorted(os.environ)),
            "at the start": Path("/proc/self/environ").read_text(),
            "folder": os.getcwd(),  # noqa: PTH109
            "temporary": str(tempfile.gettempdir() == os.environ["TMPDIR"]),
            "limits": str([resource.getrlimit(number) for number in range(16)]),
            "signals": str([signal.getsignal(number).__class__.__name__ for number in (signal.SIGTERM, signal.SIGINT)]),
            "blocked": str(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            "files": " ".join(re.sub(r"\d+", "N", file) for file in files),
            "arguments": str(sys.argv[1:]),
        }
    )


def drawn(context: Context) -> Made:
    """Draw random numbers from all generators of the process."""
    numbers = (random.random(), uuid4(), tempfile.mktemp())
    return StepResult(facts={str(place): str(number) for place, number in enumerate(numbers)})


def measuring(context: Context) -> Made:
    """Measure four steps, the last of which has no finite entropy."""
    for step in range(1, 5):
        context.progress(step, 4, loss=1 / step)
        context.measured(
            step, {"step": step, "loss": 1 / step, "learning_rate": 0.1, "entropy": float("inf" if step == 4 else 1)}
        )
    return StepResult(metrics={"loss": 0.25}, facts={"recipe_sha256": "d" * 64})


def feedback(context: Context) -> Made:
    about = {"job_id": context.task.job_id, "step": context.task.step, "attempt": context.task.attempt}
    recorded = FeedbackRecorded(
        **about, kind=context.task.kind, judge="rules", candidates=4, comparisons=2, pairs=1, ties=1, invalid=0,
        agreement=None, position_consistency=None, longer_preferred=None,
    )  # fmt: skip
    return StepResult(), [recorded]


def checkpointing(context: Context) -> Made:
    """Count to `until` in a file, starting at the highest count that any earlier run wrote."""
    root = context.task.checkpoints
    count = max([0, *(int(path.read_text()) for path in root.rglob("count"))])
    first = count
    own = context.task.own_checkpoints
    own.mkdir(parents=True)
    (own / "pid").write_text(str(os.getpid()))
    until = root.parent.parent / "until"
    while count < int(until.read_text() if until.exists() else sys.maxsize):
        count += 1
        temporary = own / "new"
        temporary.write_text(str(count))
        temporary.rename(own / "count")
        context.progress(count, 1000)
        if context.stopping:
            raise Stopping
        time.sleep(0.02)
    return StepResult(metrics={"first": float(first), "last": float(count)})


def asked_for_checkpoint(context: Context) -> Made:
    """Report progress until somebody asks for a checkpoint."""
    while not context.checkpoint_due():
        context.progress(0, 1)
        time.sleep(0.02)
    return StepResult()


def bulky(context: Context) -> Made:
    """Make ten files of 400 kB, except those that earlier runs made; each gets its name when it is complete."""
    first = count = len(list(context.task.checkpoints.rglob("part-*")))
    own = context.task.own_checkpoints
    while count < 10:
        unfinished = own / f"{UNFINISHED}{count}"
        unfinished.mkdir(parents=True)
        (unfinished / "data").write_bytes(bytes(400_000))
        unfinished.rename(own / f"part-{count}")
        count += 1
        context.progress(count, 10)
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "n").write_text(str(count))
        return StepResult(metrics={"first": float(first), "last": float(count)}, facts={"scratch": scratch})


def reading(context: Context) -> Made:
    """Count the bytes of its input."""
    folder = context.store.fetch(context.task.inputs["data"], context.task.cache)
    return StepResult(metrics={"bytes": float(len((folder / "data").read_bytes()))})


def choking(context: Context) -> Made:
    """Fill the disk until somebody frees space, and end without a message."""
    root = context.task.checkpoints
    if not (root.parent.parent / "enough").exists():
        own = context.task.own_checkpoints
        own.mkdir(parents=True)
        with contextlib.suppress(OSError), (own / "data").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        os._exit(1)
    return StepResult()


def deaf(context: Context) -> Made:
    """Start a process and never check whether to stop."""
    other = subprocess.Popen(["sleep", "1000"])
    context.task.own_checkpoints.mkdir(parents=True)
    (context.task.own_checkpoints / "pids").write_text(f"{os.getpid()} {other.pid}")
    while True:
        time.sleep(0.1)


def lingering(context: Context) -> Made:
    """Report the result but do not end."""
    threading.Thread(target=time.sleep, args=(1000,)).start()
    return StepResult(metrics={"n": 2.0})


def user(context: Context) -> Made:
    raise UserFault(Reason(field="dataset.reference", value="'x\x00'", message="no such file", remedy="correct it"))


def memory(context: Context) -> Made:
    raise MemoryFault("too large")


def wrapped_memory(context: Context) -> Made:
    try:
        raise MemoryError
    except MemoryError as error:
        raise RuntimeError("training failed") from error


def unmapped(context: Context) -> Made:
    try:
        raise RuntimeError("unable to mmap 538090408 bytes from file <model.safetensors>: Cannot allocate memory (12)")
    except RuntimeError as error:
        raise UserFault(Reason(field="base_model", message="it cannot be loaded", remedy="name another")) from error


def no_process(context: Context) -> Made:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def crash(context: Context) -> Made:
    print("last line of the library")
    raise ValueError("something \x00 unexpected")


def vanish(context: Context) -> Made:
    os._exit(3)


def garbage(context: Context) -> Made:
    os.write(context._channel._descriptor, b"no message\n\xff\xff\n{}\n")
    return StepResult(metrics={"n": 3.0})


def shared(context: Context) -> Made:
    """Share the step with another process, which does its part."""
    return _shared(context, lambda: None)


def shared_lost(context: Context) -> Made:
    """Share it with a process that is killed; this one waits for it."""
    return _shared(context, lambda: os.kill(os.getpid(), signal.SIGKILL), threading.Event().wait)


def shared_memory(context: Context) -> Made:
    """Share it with a process whose memory does not suffice; this one only notices that it is gone."""
    there = Path(tempfile.gettempdir()) / "there"

    def short_of_memory() -> None:
        there.touch()
        memory(context)

    def broken() -> None:
        while not there.exists():
            time.sleep(0.01)
        crash(context)

    return _shared(context, short_of_memory, broken)


def shared_silent(context: Context) -> Made:
    """Share it with a process that hangs; this one waits for it."""
    return _shared(context, threading.Event().wait, threading.Event().wait)


def _shared(context: Context, theirs: Callable[[], object], ours: Callable[[], object] = lambda: None) -> Made:
    with ranks(context, "tests.child"):
        context.progress(0, 1)
        if context.task.rank:
            theirs()
        else:
            ours()
    return StepResult(metrics={"rank": float(context.task.rank)})


if __name__ == "__main__":
    fork_children(os.environ.get(IMPORTED, "tests.child"))
    run_child({"evaluate": behave, "train": behave})
