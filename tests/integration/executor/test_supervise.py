"""A child process may end in any way: its worker learns which, and nothing of it is left behind. All of it holds for a child that is
started by itself and for one that a warm process forks."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from schemas.jobs import StepFault, StepResult
from schemas.progress import StepProgressed
from services.chassis.executor import supervise
from services.chassis.executor.folders import checkpoints_of, log_of
from services.chassis.executor.messages import CHANNEL_VARIABLE
from services.chassis.executor.runner import Completed, Failed, Outcome, Stopped, StopReason, Work, WorkContext
from services.chassis.executor.supervise import SubprocessRunner
from services.chassis.executor.warm import WarmProcess
from services.chassis.settings import ServiceSettings
from tests import steps
from tests.toy import until


class Run:
    """One supervised run of the test child, which `warm` forks."""

    warm: WarmProcess | None = None

    def __init__(self, home: Path, step: str, **settings: Any) -> None:
        self.work = Work(steps.request(step=step), "lease-1")
        self.progress: list[StepProgressed] = []
        given = {"lease_seconds": 600, **settings}
        self.context = WorkContext(ServiceSettings(home=home, **given), "toy", self.progress.append)
        self.checkpoints = checkpoints_of(home, "job-1", step) / "1" / "lease-1"
        self.log = log_of(home, "toy", "job-1", step, 1)

    async def outcome(self) -> Outcome:
        return await SubprocessRunner("tests.child", warm=self.warm).run(self.work, self.context)

    async def fault(self) -> StepFault:
        outcome = await self.outcome()
        assert isinstance(outcome, Failed)
        return outcome.fault

    async def result(self) -> StepResult:
        outcome = await self.outcome()
        assert isinstance(outcome, Completed)
        return outcome.result

    async def meanwhile(self, act: Callable[[], Awaitable[None]]) -> Outcome:
        """Run, and `act` at the same time."""
        running = asyncio.create_task(self.outcome())
        await act()
        return await running

    async def file(self, name: str) -> str:
        """The content of a file of the run's checkpoints, as soon as it is there."""
        path = self.checkpoints / name
        while not (path.exists() and path.read_text()):
            await asyncio.sleep(0.02)
        return path.read_text()


@pytest.fixture(scope="module", params=["started by itself", "forked"], autouse=True)
def warm(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run each test with children of both kinds."""
    process = WarmProcess(3600) if request.param == "forked" else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "warm", process)
        yield
    if process is not None:
        process.end()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_result_comes_back_and_what_libraries_print_goes_to_the_log(tmp_path: Path) -> None:
    run = Run(tmp_path, "complete")
    result = await run.result()
    assert result.metrics == {"n": 1.0}
    assert not alive(int(result.facts["pid"]))
    assert run.log.read_text().splitlines() == ["libraries print here", "and here"]


async def test_the_chassis_brings_no_torch_into_a_child(tmp_path: Path) -> None:
    assert (await Run(tmp_path, "complete").result()).facts["torch"] == "False"


async def test_progress_comes_with_memory_and_names_the_attempt(tmp_path: Path) -> None:
    run = Run(tmp_path, "complete")
    await run.outcome()
    report = run.progress[0]
    assert (report.job_id, report.step, report.attempt, report.unit) == ("job-1", "complete", 1, "rows")
    assert report.memory_bytes is not None
    assert 2**20 < report.memory_bytes < 2**30
    assert report.loss is None


async def test_extra_events_come_back_typed_and_owned_by_the_attempt(tmp_path: Path) -> None:
    run = Run(tmp_path, "feedback")
    outcome = await run.outcome()
    assert isinstance(outcome, Completed)
    (extra,) = outcome.decisions
    assert (extra.owner, extra.data.type_name()) == (run.work.ref, "FeedbackRecorded")


async def test_a_fault_of_the_user_names_field_value_and_remedy(tmp_path: Path) -> None:
    fault = await Run(tmp_path, "user").fault()
    assert fault.cause == "user"
    (reason,) = fault.reasons
    assert (reason.field, reason.value, reason.remedy) == ("dataset.reference", "'x\ufffd'", "correct it")


@pytest.mark.parametrize("step", ["memory", "wrapped_memory", "unmapped", "no_process"])
def test_memory_that_ran_out_is_told_apart(tmp_path: Path, step: str) -> None:
    assert asyncio.run(Run(tmp_path, step).fault()).cause == "memory"


async def test_an_unexpected_error_is_a_fault_of_the_infrastructure_with_the_tail_of_the_log(tmp_path: Path) -> None:
    fault = await Run(tmp_path, "crash").fault()
    assert (fault.cause, fault.message) == ("infrastructure", "ValueError: something \ufffd unexpected")
    assert any("last line of the library" in line for line in fault.log_tail)
    assert "ValueError: something" in fault.log_tail[-2] + fault.log_tail[-1]


async def test_a_kind_without_a_handler_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path, "complete")
    run.work = Work(steps.request(step="complete", kind="label"), "lease-1")
    assert "no handler for steps of kind label" in (await run.fault()).message


async def test_a_child_that_vanishes_without_a_word_is_a_fault_of_the_infrastructure(tmp_path: Path) -> None:
    fault = await Run(tmp_path, "vanish").fault()
    assert (fault.cause, fault.message) == ("infrastructure", "the process ended with exit code 3 and no result")


async def test_a_module_that_does_not_exist_is_a_fault_whose_log_says_so(tmp_path: Path) -> None:
    run = Run(tmp_path, "complete")
    outcome = await SubprocessRunner("tests.no_such_module").run(run.work, run.context)
    assert isinstance(outcome, Failed)
    assert "No module named tests.no_such_module" in outcome.fault.log_tail[-1]


async def test_what_is_no_message_is_passed_over(tmp_path: Path) -> None:
    assert (await Run(tmp_path, "garbage").result()).metrics == {"n": 3.0}


async def test_a_child_that_is_killed_fails_with_the_signal_and_its_log(tmp_path: Path) -> None:
    run = Run(tmp_path, "checkpointing")

    async def kill() -> None:
        os.kill(int(await run.file("pid")), signal.SIGKILL)

    outcome = await run.meanwhile(kill)
    assert isinstance(outcome, Failed)
    assert (outcome.fault.cause, "SIGKILL" in outcome.fault.message) == ("infrastructure", True)


async def test_a_child_that_the_kernel_killed_for_memory_fails_for_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([4, 5])
    monkeypatch.setattr(supervise, "oom_kills", lambda: next(counts))
    run = Run(tmp_path, "checkpointing")

    async def kill() -> None:
        os.kill(int(await run.file("pid")), signal.SIGKILL)

    outcome = await run.meanwhile(kill)
    assert isinstance(outcome, Failed)
    assert outcome.fault.cause == "memory"


async def test_a_child_asked_to_stop_checkpoints_and_stops(tmp_path: Path) -> None:
    run = Run(tmp_path, "checkpointing")

    async def stop() -> None:
        await run.file("count")
        run.context.request_stop(StopReason.DRAIN)

    assert await run.meanwhile(stop) == Stopped()
    assert int(await run.file("count")) >= 1


async def test_a_child_that_somebody_else_asked_to_stop_has_stopped_too(tmp_path: Path) -> None:
    run = Run(tmp_path, "checkpointing")

    async def terminate() -> None:
        await run.file("count")
        os.kill(int(await run.file("pid")), signal.SIGTERM)

    assert await run.meanwhile(terminate) == Stopped()


async def test_a_hanging_child_that_ignores_sigterm_is_killed_after_the_grace_with_all_it_started(tmp_path: Path) -> None:
    run = Run(tmp_path, "deaf", drain_seconds=0.8)
    asked_at = 0.0

    async def stop() -> None:
        nonlocal asked_at
        await run.file("pids")
        asked_at = time.monotonic()
        run.context.request_stop(StopReason.CANCEL)

    assert await asyncio.wait_for(run.meanwhile(stop), 300) == Stopped()
    assert time.monotonic() - asked_at > 0.5
    assert not any(alive(int(pid)) for pid in (await run.file("pids")).split())


async def test_a_lost_lease_kills_the_child_at_once_with_all_it_started(tmp_path: Path) -> None:
    run = Run(tmp_path, "deaf", drain_seconds=6000)

    async def lose() -> None:
        await run.file("pids")
        run.context.request_stop(StopReason.LEASE_LOST)

    assert await asyncio.wait_for(run.meanwhile(lose), 300) == Stopped()
    assert not any(alive(int(pid)) for pid in (await run.file("pids")).split())


async def test_a_lease_lost_while_the_child_is_stopping_kills_it_at_once(tmp_path: Path) -> None:
    run = Run(tmp_path, "deaf", drain_seconds=6000)

    async def stop_then_lose() -> None:
        await run.file("pids")
        run.context.request_stop(StopReason.DRAIN)
        await asyncio.sleep(0.1)
        run.context.request_stop(StopReason.LEASE_LOST)

    assert await asyncio.wait_for(run.meanwhile(stop_then_lose), 300) == Stopped()


async def test_a_child_that_somebody_has_stopped_is_killed_after_a_while_and_its_fault_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "_FROZEN_SECONDS", 0.5)
    run = Run(tmp_path, "checkpointing")

    async def freeze() -> None:
        os.kill(int(await run.file("pid")), signal.SIGSTOP)

    outcome = await asyncio.wait_for(run.meanwhile(freeze), 300)
    assert isinstance(outcome, Failed)
    assert (outcome.fault.cause, "SIGSTOP" in outcome.fault.message) == ("infrastructure", True)


async def test_a_child_that_somebody_has_stopped_checkpoints_when_it_is_asked_to_end(tmp_path: Path) -> None:
    run = Run(tmp_path, "checkpointing", drain_seconds=6000)

    async def freeze_then_stop() -> None:
        await run.file("count")
        os.kill(int(await run.file("pid")), signal.SIGSTOP)
        run.context.request_stop(StopReason.DRAIN)

    assert await asyncio.wait_for(run.meanwhile(freeze_then_stop), 300) == Stopped()


async def test_a_child_is_asked_for_a_checkpoint_and_goes_on(tmp_path: Path) -> None:
    run = Run(tmp_path, "asked_for_checkpoint")

    async def ask() -> None:
        while not run.progress:
            await asyncio.sleep(0.02)
        run.context.ask_for_checkpoint()

    assert isinstance(await asyncio.wait_for(run.meanwhile(ask), 300), Completed)


async def test_a_child_whose_lease_is_not_renewed_ends_and_that_is_no_failure(tmp_path: Path) -> None:
    run = Run(tmp_path, "deaf", lease_seconds=1.0)
    assert await asyncio.wait_for(run.outcome(), 300) == Stopped()
    assert not any(alive(int(pid)) for pid in (await run.file("pids")).split())


async def test_a_child_whose_lease_is_renewed_works_on(tmp_path: Path) -> None:
    run = Run(tmp_path, "checkpointing", lease_seconds=6.0)
    until = run.checkpoints.parent.parent.parent.parent / "until"

    async def renew() -> None:
        began = time.monotonic()
        await run.file("count")
        while time.monotonic() - began < 7.5:
            run.context.renewed()
            await asyncio.sleep(0.1)
        until.write_text("1")

    assert isinstance(await asyncio.wait_for(run.meanwhile(renew), 300), Completed)


async def test_a_child_that_has_said_its_last_word_but_does_not_end_is_killed_and_its_result_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "_EXIT_SECONDS", 0.3)
    assert (await asyncio.wait_for(Run(tmp_path, "lingering").result(), 300)).metrics == {"n": 2.0}


async def test_a_cancelled_supervision_leaves_no_process_behind(tmp_path: Path) -> None:
    run = Run(tmp_path, "deaf")
    running = asyncio.create_task(run.outcome())
    pids = [int(pid) for pid in (await run.file("pids")).split()]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not any(alive(pid) for pid in pids)


async def test_a_child_whose_worker_is_gone_ends_at_once_with_all_it_started(tmp_path: Path) -> None:
    """The end of standard input alone is enough, where the kernel does not tell of a parent's death."""
    run = Run(tmp_path, "deaf")
    task = supervise._task(run.work, run.context, tmp_path / "1.log", 1)
    ours, childs = os.pipe()
    process = subprocess.Popen(  # noqa: ASYNC220 (asyncio would tie it to this loop)
        [sys.executable, "-m", "tests.child"], stdin=subprocess.PIPE, pass_fds=(childs,), start_new_session=True,
        env={**os.environ, CHANNEL_VARIABLE: str(childs)},
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(task.model_dump_json().encode() + b"\n")
    process.stdin.flush()
    pids = [int(pid) for pid in (await run.file("pids")).split()]
    assert all(alive(pid) for pid in pids)
    process.stdin.close()
    process.wait(timeout=120)
    await until(lambda: not any(alive(pid) for pid in pids))
    os.close(ours)
    os.close(childs)


async def test_a_child_is_the_first_to_go_when_memory_is_short(tmp_path: Path) -> None:
    run = Run(tmp_path, "checkpointing")

    async def look() -> None:
        pid = await run.file("pid")
        assert await asyncio.to_thread(Path(f"/proc/{pid}/oom_score_adj").read_text) == "500\n"
        run.context.request_stop(StopReason.CANCEL)

    await run.meanwhile(look)


async def test_no_descriptor_is_left_open_by_a_run(tmp_path: Path) -> None:
    await Run(tmp_path, "complete").outcome()
    before = psutil.Process().num_fds()
    await Run(tmp_path, "crash").outcome()
    await Run(tmp_path, "complete").outcome()
    await asyncio.sleep(0)
    assert psutil.Process().num_fds() <= before
