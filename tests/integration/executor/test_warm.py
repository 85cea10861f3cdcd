"""A warm process forks the children of steps; whatever happens to it, a step has a child, and finds what one finds that was started by itself."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from schemas.jobs import StepResult
from services.chassis.executor import forked, supervise
from services.chassis.executor import warm as warm_module
from services.chassis.executor.folders import checkpoints_of
from services.chassis.executor.runner import Completed, Failed, Outcome, Stopped, StopReason, Work, WorkContext
from services.chassis.executor.supervise import SubprocessRunner
from services.chassis.executor.warm import POSSIBLE, WarmProcess
from services.chassis.settings import ServiceSettings
from tests.child import IMPORTED
from tests.steps import request
from tests.toy import until

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="only Linux has warm processes")


@pytest.fixture
def warm() -> Iterator[WarmProcess]:
    process = WarmProcess(3600)
    yield process
    process.end()


class Step:
    """One step of the test child."""

    def __init__(self, home: Path, name: str, warm: WarmProcess | None, **environment: str) -> None:
        self._work = Work(request(step=name), "lease-1")
        self.context = WorkContext(ServiceSettings(home=home, lease_seconds=600), "toy", lambda _: None)
        self._runner = SubprocessRunner("tests.child", environment=environment, warm=warm)
        self._checkpoints = checkpoints_of(home, "job-1", name) / "1" / "lease-1"

    async def run(self) -> Outcome:
        return await self._runner.run(self._work, self.context)

    async def begun(self) -> tuple["asyncio.Task[Outcome]", psutil.Process]:
        """Run it; return with its process, once that counts."""
        running = asyncio.create_task(self.run())
        await until(lambda: bool(list(self._checkpoints.glob("pid*"))))
        (file,) = self._checkpoints.glob("pid*")
        await until(lambda: bool(file.read_text()))
        return running, psutil.Process(int(file.read_text().split()[0]))


async def result(home: Path, warm: WarmProcess | None, *, name: str = "complete", **environment: str) -> StepResult:
    outcome = await Step(home, name, warm, **environment).run()
    assert isinstance(outcome, Completed), outcome
    return outcome.result


async def parent(home: Path, warm: WarmProcess | None, **environment: str) -> int:
    return int((await result(home, warm, **environment)).facts["parent"])


async def test_steps_are_forked_from_one_process(tmp_path: Path, warm: WarmProcess) -> None:
    assert warm.pid is None, "it starts with the first step"
    at_once = asyncio.gather(*(parent(tmp_path / name, warm) for name in ("a", "b")))
    assert {*await at_once, await parent(tmp_path, warm)} == {warm.pid}


async def test_a_forked_child_finds_what_one_finds_that_was_started_by_itself(
    tmp_path: Path, warm: WarmProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEUROWEAVER_DATABASE_URL", "postgresql://user:swordfish@localhost/one")
    alone, by_fork = [(await result(tmp_path, process, name="surroundings")).facts for process in (None, warm)]
    assert "swordfish" not in str(by_fork)
    assert {**by_fork, "at the start": ""} == {**alone, "at the start": ""}


async def test_each_fork_draws_other_random_numbers(tmp_path: Path, warm: WarmProcess) -> None:
    one, other = [(await result(tmp_path, warm, name="drawn")).facts for _ in range(2)]
    assert not set(one.values()) & set(other.values())


async def test_other_surroundings_need_another_process(
    tmp_path: Path, warm: WarmProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await parent(tmp_path, warm)
    second = await parent(tmp_path, warm, MORE="1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    assert len({first, second, await parent(tmp_path, warm, MORE="1")}) == 3
    assert not psutil.pid_exists(first) or psutil.Process(first).status() == psutil.STATUS_ZOMBIE


async def test_one_that_is_killed_takes_its_children_along_and_is_replaced(tmp_path: Path, warm: WarmProcess) -> None:
    running, child = await Step(tmp_path, "checkpointing", warm).begun()
    killed = warm.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    outcome = await running
    assert isinstance(outcome, Failed)
    assert (outcome.fault.cause, "SIGKILL" in outcome.fault.message) == ("infrastructure", True)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert await parent(tmp_path, warm) == warm.pid != killed


async def test_a_step_starts_without_one_that_hangs_which_is_replaced(
    tmp_path: Path, warm: WarmProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = await parent(tmp_path, warm)
    os.kill(hanging, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(forked, "_START_SECONDS", 0.2)
        assert await parent(tmp_path, warm) == os.getpid()
    assert await parent(tmp_path, warm) == warm.pid != hanging


async def test_a_result_counts_although_the_process_that_forked_the_child_hangs(
    tmp_path: Path, warm: WarmProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forked, "_STATUS_SECONDS", 0.2)
    step = Step(tmp_path, "checkpointing", warm)
    running, _ = await step.begun()
    os.kill(warm.pid or 0, signal.SIGSTOP)
    step.context.request_stop(StopReason.DRAIN)
    assert await running == Stopped()


async def test_a_step_with_a_gpu_is_not_forked(tmp_path: Path, warm: WarmProcess) -> None:
    step = Step(tmp_path, "complete", warm)
    step.context.gpus = (0,)
    outcome = await step.run()
    assert isinstance(outcome, Completed)
    assert int(outcome.result.facts["parent"]) == os.getpid()
    assert warm.pid is None


async def test_a_forked_child_that_hangs_says_where_it_stands(
    tmp_path: Path, warm: WarmProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = list[supervise.Child]()

    class Watched(supervise.Child):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            children.append(self)

    monkeypatch.setattr(supervise, "Child", Watched)
    monkeypatch.setattr(supervise, "_LONGEST_SLEEP", 0.1)
    monkeypatch.setattr(supervise, "_DUMP_SECONDS", 0.5)
    running, _ = await Step(tmp_path, "deaf", warm).begun()
    children[0]._heard_at -= 2 * ServiceSettings().hung_seconds
    outcome = await running
    assert isinstance(outcome, Failed)
    assert outcome.fault.cause == "hung"
    assert any("in deaf" in line for line in outcome.fault.log_tail)


async def test_one_that_cannot_be_forked_says_why_and_is_tried_a_few_times(
    tmp_path: Path, warm: WarmProcess, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_module, "_TRIES", 1)
    for _ in range(2):
        assert await parent(tmp_path, warm, **{IMPORTED: "tests.threaded"}) == os.getpid()
    assert "".join(capfd.readouterr()).count("this process cannot be forked: it has 2 threads") == 1


async def test_one_that_nothing_needs_ends_and_another_starts_when_it_is_needed(tmp_path: Path) -> None:
    warm = WarmProcess(0.05)
    first = await parent(tmp_path, warm)
    await until(lambda: warm.pid is None)
    assert first != await parent(tmp_path, warm) != os.getpid()
    warm.end()


async def test_it_ends_with_the_service_after_the_last_step(tmp_path: Path, warm: WarmProcess) -> None:
    step, stop = Step(tmp_path, "checkpointing", warm), asyncio.Event()
    serving = asyncio.create_task(warm.run(stop))
    running, _ = await step.begun()
    process = psutil.Process(warm.pid)
    stop.set()
    assert await parent(tmp_path, warm) == os.getpid(), "no step begins with it any more"
    step.context.request_stop(StopReason.DRAIN)
    assert await running == Stopped()
    await serving
    assert not process.is_running()


async def test_without_a_time_there_is_none(tmp_path: Path) -> None:
    assert await parent(tmp_path, WarmProcess(0)) == os.getpid()
