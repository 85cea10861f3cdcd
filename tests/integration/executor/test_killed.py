"""kill -9 of a child, and of a worker with its child, each alone: real processes, a real database."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil

from services.chassis.executor.attempts import attempt_ref
from services.chassis.executor.folders import checkpoints_of
from services.chassis.executor.supervise import SubprocessRunner
from tests.executor import Executor
from tests.steps import request
from tests.toy import until

LEASE_SECONDS = 600.0
"""No slow machine loses it; where it is to run out, the test says so."""


def newest_count(root: Path) -> int:
    return max([0, *(int(path.read_text()) for path in root.rglob("count"))])


def pid_of_child(root: Path, attempt: int) -> int:
    (pid,) = (int(path.read_text()) for path in (root / str(attempt)).rglob("pid"))
    return pid


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_a_killed_child_fails_its_attempt_and_the_next_attempt_goes_on_from_its_checkpoint(
    executor: Executor,
) -> None:
    step = "checkpointing"
    first, second = attempt_ref("a", step, 1), attempt_ref("a", step, 2)
    root = checkpoints_of(executor.settings.home, "a", step)
    await executor.deliver(request("a", step=step))
    async with executor.working(SubprocessRunner("tests.child")):
        await until(lambda: newest_count(root) >= 3)
        os.kill(pid_of_child(root, 1), signal.SIGKILL)
        await until(lambda: _is(executor, 1, "failed"))
        count = newest_count(root)
        fault = (await executor.state(first)).fault
        assert fault is not None
        assert (fault.cause, "SIGKILL" in fault.message) == ("infrastructure", True)
        (root.parent.parent / "until").write_text(str(count + 5))
        await executor.deliver(request("a", step=step, attempt=2))  # the orchestrator's retry
        await until(lambda: _is(executor, 2, "completed"))
    result = (await executor.state(second)).result
    assert result is not None
    assert result.metrics == {"first": count, "last": count + 5}


async def _is(executor: Executor, attempt: int, status: str) -> bool:
    return await executor.status(attempt_ref("a", "checkpointing", attempt)) == status


async def test_a_killed_worker_leaves_no_orphan_and_its_work_is_taken_over_from_the_checkpoint(
    executor: Executor, tmp_path: Path
) -> None:
    step = "checkpointing"
    ref = attempt_ref("a", step, 1)
    root = checkpoints_of(tmp_path, "a", step)
    await executor.deliver(request("a", step=step))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.lone_worker", executor.database_url, executor.name, str(tmp_path), str(LEASE_SECONDS)
    )
    try:
        await until(lambda: newest_count(root) >= 3)
        child = pid_of_child(root, 1)
        assert not gone(child)
    finally:
        process.kill()
        await process.wait()
    await until(lambda: gone(child))
    count = newest_count(root)
    await asyncio.sleep(0.2)
    assert newest_count(root) == count, "somebody still works"
    (root.parent.parent / "until").write_text(str(count + 5))
    await executor.lapse()
    async with executor.working(SubprocessRunner("tests.child"), lease_seconds=LEASE_SECONDS):
        await until(lambda: _is(executor, 1, "completed"))
    state = await executor.state(ref)
    assert state.result is not None
    assert (state.starts, state.result.metrics) == (2, {"first": count, "last": count + 5})
    assert await executor.said(ref) == ["StepStarted", "StepStarted", "StepCompleted"]


async def test_a_worker_that_freezes_past_its_lease_loses_its_child_and_its_say(executor: Executor, tmp_path: Path) -> None:
    """Whoever takes the step over works alone, also while the frozen worker holds its pipes open."""
    step = "checkpointing"
    ref = attempt_ref("a", step, 1)
    root = checkpoints_of(tmp_path, "a", step)
    await executor.deliver(request("a", step=step))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.lone_worker", executor.database_url, executor.name, str(tmp_path), "5"
    )
    try:
        await until(lambda: newest_count(root) >= 3)
        child = psutil.Process(pid_of_newest_child(root))
        process.send_signal(signal.SIGSTOP)
        await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
        count = newest_count(root)
        (root.parent.parent / "until").write_text(str(count + 5))
        async with executor.working(SubprocessRunner("tests.child"), lease_seconds=LEASE_SECONDS):
            await until(lambda: _is(executor, 1, "completed"))
        process.send_signal(signal.SIGCONT)
        await asyncio.sleep(1)  # it may say what it likes now
    finally:
        process.kill()
        await process.wait()
    said = await executor.said(ref)
    assert (set(said[:-1]), said[-1]) == ({"StepStarted"}, "StepCompleted")
    result = (await executor.state(ref)).result
    assert result is not None
    assert result.metrics["last"] == count + 5


def pid_of_newest_child(root: Path) -> int:
    return int(max(root.rglob("pid"), key=lambda path: path.stat().st_mtime).read_text())


async def test_a_drained_worker_lets_its_child_checkpoint_and_the_next_goes_on_from_there(executor: Executor) -> None:
    step = "checkpointing"
    root = checkpoints_of(executor.settings.home, "a", step)
    await executor.deliver(request("a", step=step))
    async with executor.working(SubprocessRunner("tests.child"), lease_seconds=600) as stop:
        await until(lambda: newest_count(root) >= 3)
        child = pid_of_child(root, 1)
        stop.set()
    assert gone(child)
    count = newest_count(root)
    (root.parent.parent / "until").write_text(str(count + 2))
    async with executor.working(SubprocessRunner("tests.child"), lease_seconds=600):
        await until(lambda: _is(executor, 1, "completed"))
    result = (await executor.state(attempt_ref("a", step, 1))).result
    assert result is not None
    assert result.metrics["first"] == count
