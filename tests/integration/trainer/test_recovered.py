"""Trainings that hang or have too little memory are ended, tried again and complete with what an undisturbed one makes."""

import asyncio
import resource
import shutil
import sys
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

import pytest

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import TrainSettings
from services.chassis.executor import supervise
from services.chassis.executor.child import Context, run_child
from services.chassis.executor.folders import log_of
from services.chassis.executor.log_reading import read_lines
from services.chassis.executor.messages import MESSAGE, FaultMessage, ResultMessage
from services.chassis.executor.runner import Completed, Failed, Outcome, Work, WorkContext
from services.chassis.executor.supervise import Child, SubprocessRunner
from services.chassis.settings import ServiceSettings
from services.chassis.storage.sources.settings import SourceSettings
from services.chassis.storage.stores import FULL, StorageFailure
from services.trainer.steps.train import train
from tests.afflicted import HANGS, HANGS_AFTER
from tests.faults.small_disk import fill, small_disk
from tests.faults.small_disk import why_not as small_disk_is_impossible
from tests.forked import FORKS, become_child
from tests.steps import request
from tests.toy import until
from tests.trainer import Reports, context_of, lines_of, task_of

_HOUR = 3600.0
_ROOM = 330_000
"""Bytes for one checkpoint and not for two."""
_MEMORY = 800 * 2**20
"""Bytes that a training may allocate. Measured: its batch takes 1000 to 1200 MB whole and 500 to 600 in halves."""


def settings(base: Path, batch_size: int = 6, steps: int = 6) -> TrainSettings:
    return TrainSettings(
        base_model=str(base),
        training=TrainingSettings(
            precision="fp32", max_length=96, checkpoint_steps=2,
            optimiser=OptimiserSettings(learning_rate=1e-2, steps=steps, batch_size=batch_size),
        ),
    )  # fmt: skip


def losses(result: StepResult) -> list[float]:
    return [point["loss"] for point in lines_of(result.outputs["adapter"], "curve.jsonl")]


class Worker:
    """Runs attempts at one training with the real runner."""

    def __init__(self, home: Path, base: Path, data: ArtifactRef) -> None:
        self.given = settings(base)
        self.data = data
        self.settings = ServiceSettings(
            home=home, lease_seconds=_HOUR, hung_seconds=_HOUR, sources=SourceSettings(folders=(base,))
        )

    async def attempt(self, number: int, **environment: str) -> Outcome:
        asked = request("job", "train", number, kind="train", settings=self.given, inputs={"dataset": self.data})
        context = WorkContext(self.settings, "trainer", lambda _: None)
        return await SubprocessRunner("tests.afflicted", environment=environment).run(Work(asked, uuid4().hex), context)

    def lines(self, number: int) -> str:
        """Return what `jobs logs` shows of an attempt."""
        found = read_lines(log_of(self.settings.home, "trainer", "job", "train", number), None)
        return "\n".join(found.lines if found else ())


async def test_a_training_that_hangs_says_where_it_stands_and_the_next_attempt_goes_on_from_its_checkpoint(
    tmp_path: Path, base: Path, dataset: ArtifactRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, hangs, children = Worker(tmp_path, base, dataset), tmp_path / "hangs", list[Child]()

    class Watched(Child):
        def __init__(self, *given: object) -> None:
            super().__init__(*given)  # type: ignore[arg-type]
            children.append(self)

    monkeypatch.setattr(supervise, "Child", Watched)
    monkeypatch.setattr(supervise, "_LONGEST_SLEEP", 0.1)
    first = asyncio.create_task(worker.attempt(1, **{HANGS_AFTER: "3", HANGS: str(hangs)}))
    await until(lambda: hangs.exists() or first.done(), what=lambda: worker.lines(1))
    children[0]._heard_at -= _HOUR  # an hour passes in which it says nothing
    ended = await first
    assert isinstance(ended, Failed)
    assert ended.fault.cause == "hung"
    assert "a_collator_that_never_returns" in worker.lines(1), "its log has the stacks of its threads"
    assert any("a_collator_that_never_returns" in line for line in ended.fault.log_tail)
    second = await worker.attempt(2)
    assert isinstance(second, Completed), second
    assert "continuing from checkpoint" in worker.lines(2)
    assert "step-00000002" in worker.lines(2)
    undisturbed = train(context_of(tmp_path / "undisturbed", worker.given, {"dataset": dataset}))
    assert second.result.outputs["adapter"].sha256 == undisturbed.outputs["adapter"].sha256


def short_of_memory(task: str, said: Path) -> NoReturn:
    """Run a task as a worker starts it, with a limit of what it may allocate."""
    become_child(task, said)
    status = Path("/proc/self/status").read_text()
    allocated = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmData"))) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (allocated + _MEMORY, allocated + _MEMORY))
    run_child({"train": train})


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits what a process allocates by mmap (RLIMIT_DATA)")
def test_a_training_whose_memory_is_refused_completes_in_smaller_parts_with_the_same_losses(
    tmp_path: Path, base: Path, dataset: ArtifactRef
) -> None:
    given, inputs = settings(base, batch_size=2048, steps=2), {"dataset": dataset}
    ends = []
    for failures in (0, 1):
        said = tmp_path / f"said-{failures}"
        task = task_of(tmp_path, given, inputs, attempt=failures + 1, memory_failures=failures)
        child = FORKS.Process(target=short_of_memory, args=(task.model_dump_json(), said))
        child.start()
        child.join()
        ends.append(MESSAGE.validate_json(said.read_bytes().splitlines()[-1]))
    first, second = ends
    assert isinstance(first, FaultMessage)
    assert first.fault.cause == "memory", first.fault
    assert isinstance(second, ResultMessage), second
    unlimited = train(context_of(tmp_path / "unlimited", given, inputs))
    assert losses(second.result) == pytest.approx(losses(unlimited), rel=1e-5)


@pytest.mark.skipif(small_disk_is_impossible() is not None, reason=str(small_disk_is_impossible()))
def test_a_training_whose_disk_is_full_keeps_its_last_checkpoint_and_completes_when_there_is_room(
    tmp_path: Path, base: Path, dataset: ArtifactRef
) -> None:
    given, inputs = settings(base), {"dataset": dataset}
    with small_disk(tmp_path / "small", "1m") as disk:

        def attempt() -> StepResult:
            task = task_of(tmp_path, given, inputs).model_copy(update={"checkpoints": disk / "checkpoints"})
            return train(Context(task, Reports()))

        fill(disk / "filler", leave=_ROOM)
        with pytest.raises(StorageFailure) as raised:
            attempt()
        assert (raised.value.unwritable.why, raised.value.unwritable.place.startswith(str(disk))) == (FULL, True)
        assert [path.name for path in disk.glob("checkpoints/*/*/*")] == ["step-00000002"], "nothing half written stays"
        (disk / "filler").unlink()
        result = attempt()
    undisturbed = train(context_of(tmp_path / "undisturbed", given, inputs))
    assert result.outputs["adapter"].sha256 == undisturbed.outputs["adapter"].sha256


def test_a_training_whose_checkpoints_another_run_removes_goes_on(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    """A run that lost its lease may complete, and so clear the step, while the next one works."""
    context = context_of(tmp_path, settings(base), {"dataset": dataset})

    def progress(done: int, *_: object, **__: object) -> None:
        if done == 3:
            shutil.rmtree(context.task.checkpoints)

    context.progress = progress  # type: ignore[method-assign]
    result = train(context)
    assert [path.name for path in context.task.own_checkpoints.iterdir()] == ["step-00000004"]
    undisturbed = train(context_of(tmp_path / "undisturbed", settings(base), {"dataset": dataset}))
    assert result.outputs["adapter"].sha256 == undisturbed.outputs["adapter"].sha256
