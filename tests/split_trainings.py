"""A child that does several trainings, one after the other, with the same processes: `python -m tests.split_trainings`.

It reads them from the file `trainings.json` beside its cache, and returns what each makes under its name.
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
        made = train(Context(task.model_copy(update=more), context._channel))
        for ref in made.outputs.values():
            outputs[name] = ref
    return StepResult(outputs=outputs)


def train(context: Context) -> StepResult:
    with ranks(context, "tests.split_trainings"):
        return trainings(context)


if __name__ == "__main__":
    run({"train": train})
