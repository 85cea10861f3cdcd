"""A child that does several trainings, one after the other, with the same processes: `python -m tests.split_trainings`.

It reads them from the file `trainings.json` beside its cache, returns what each makes under its name, and keeps it in `made.json` too. With
the variable `HELD_AT` they wait behind the checkpoint of that step until a stop is asked for.
"""

import json
import os
import tempfile
from pathlib import Path

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.steps import TrainSettings
from services.chassis.executor.child import Context
from services.chassis.executor.ranks import ranks
from services.trainer.child import run
from tests.held_training import hold
from tests.trainer import weights_of

HELD_AT = "HELD_AT"


def trainings(context: Context) -> StepResult:
    from services.trainer.steps.train import train

    task = context.task
    outputs: dict[str, ArtifactRef] = {}
    for name, asked in json.loads((task.cache.parent / "trainings.json").read_text()).items():
        folder = Path(os.environ["TMPDIR"]) / name
        folder.mkdir(exist_ok=True)
        tempfile.tempdir = str(folder)
        settings = TrainSettings.model_validate(asked["settings"])
        inputs = {key: ArtifactRef.model_validate(ref) for key, ref in asked["inputs"].items()}
        more = {"step": name, "settings": settings, "inputs": inputs, "checkpoints": task.checkpoints / name}
        of_training = Context(task.model_copy(update=more), context._channel)
        of_training._stop = context._stop
        if (made := weights_of(train(of_training))) is not None:
            outputs[name] = made
        if not task.rank:
            (task.cache.parent / "made.json").write_text(
                json.dumps({name: ref.model_dump() for name, ref in outputs.items()})
            )
    return StepResult(outputs=outputs)


def train(context: Context) -> StepResult:
    if HELD_AT in os.environ:
        hold(context, int(os.environ[HELD_AT]))
    with ranks(context, "tests.split_trainings"):
        return trainings(context)


if __name__ == "__main__":
    run({"train": train})
