"""Runs a step in a real child, as a worker does, a training split over processes too; tests interrupt it and compare what it makes."""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from schemas.artifacts import ArtifactRef
from schemas.progress import StepProgressed
from schemas.steps import StepSettings, TrainSettings
from services.chassis.executor.runner import Completed, Outcome, StopReason, Work, WorkContext
from services.chassis.executor.supervise import SubprocessRunner
from services.chassis.executor.warm import WarmProcess
from services.chassis.storage.sources.settings import SourceSettings
from services.trainer.settings import TrainerSettings
from tests.allowed import TEMPORARY
from tests.steps import request

Act = Callable[["Split"], None]
Trainings = Mapping[str, tuple[TrainSettings, Mapping[str, ArtifactRef]]]
"""The settings and the inputs of each training, by name."""


class Split:
    """One run of a step of the trainer, which is named as its kind."""

    def __init__(
        self,
        home: Path,
        step: StepSettings,
        inputs: Mapping[str, ArtifactRef],
        processes: int,
        attempt: int = 1,
        module: str = "services.trainer.child",
        environment: Mapping[str, str] | None = None,
        warm: WarmProcess | None = None,
        strategy: str = "ddp",
    ) -> None:
        settings = TrainerSettings(
            home=home, lease_seconds=600, drain_seconds=60, trainer_launcher="torchrun" if processes > 1 else "local",
            trainer_processes=processes, trainer_strategy=strategy, artifacts=str(home / "artifacts"),
            sources=SourceSettings(folders=(TEMPORARY,)),
        )  # fmt: skip
        asked = request(kind=step.kind, step=step.kind, settings=step, inputs=dict(inputs), attempt=attempt)
        self._work = Work(asked, f"lease-{attempt}")
        shards = processes if strategy == "fsdp" else 1
        self._runner = SubprocessRunner(module, processes, environment or {}, warm, shards)
        self.progress: list[StepProgressed] = []
        self.context = WorkContext(settings, "trainer", self.progress.append)
        self.log = home / "logs" / "trainer" / asked.job_id / step.kind / f"{attempt}.log"
        self.checkpoints = home / "checkpoints" / asked.job_id / step.kind

    def processes(self, module: str = "services.trainer.rank") -> list[psutil.Process]:
        """The processes of the run that this module is the main of, by default those that its child started."""
        return [process for process in psutil.Process().children(recursive=True) if _runs(process, module)]

    def stop(self) -> None:
        """Ask the run to end, as a drain of the service does."""
        self.context.request_stop(StopReason.DRAIN)

    def run(self, at_checkpoint: int = 0, act: Act | None = None, of: str = "") -> Outcome:
        """Run to the end; `act` when the checkpoint of that step is there, `of` says in which folder."""
        return asyncio.run(self._run(f"{of}*/*/step-{at_checkpoint:08d}", act))

    async def _run(self, checkpoint: str, act: Act | None) -> Outcome:
        running = asyncio.create_task(self._runner.run(self._work, self.context))
        while act is not None and not running.done():
            if list(self.checkpoints.glob(checkpoint)):
                act(self)
                act = None
            await asyncio.sleep(0.01)
        return await running


def trained(home: Path, asked: Trainings, processes: int) -> Mapping[str, ArtifactRef]:
    """Do all trainings in one child, which saves the imports of the others; returns what each makes."""
    outcome = of_trainings(home, asked, processes).run()
    assert isinstance(outcome, Completed), outcome
    return outcome.result.outputs


def of_trainings(
    home: Path, asked: Trainings, processes: int, strategy: str = "ddp", attempt: int = 1, held_at: int | None = None
) -> Split:
    """Return a run that does these trainings one after the other, and waits behind the checkpoint of step `held_at` for a stop."""
    trainings = {
        name: {"settings": step.model_dump(mode="json"), "inputs": {key: ref.model_dump() for key, ref in inputs.items()}}
        for name, (step, inputs) in asked.items()
    }
    home.mkdir(exist_ok=True)
    (home / "trainings.json").write_text(json.dumps(trainings))
    first, _ = next(iter(asked.values()))
    held = {} if held_at is None else {"HELD_AT": str(held_at)}
    return Split(home, first, {}, processes, attempt, "tests.split_trainings", held, strategy=strategy)


def made_by(home: Path) -> Mapping[str, ArtifactRef]:
    """Return what trainings of `of_trainings` have made, also if a later one was stopped."""
    made = json.loads((home / "made.json").read_text())
    return {name: ArtifactRef.model_validate(ref) for name, ref in made.items()}


def _runs(process: psutil.Process, module: str) -> bool:
    try:
        return module in process.cmdline()
    except psutil.Error:  # it has ended
        return False
