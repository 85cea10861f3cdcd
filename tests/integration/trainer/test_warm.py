"""A training that is forked from a process that has all imports is the training of a process of its own."""

from pathlib import Path

import pytest

from schemas.artifacts import ArtifactRef
from schemas.recipes.lora import LoraSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import TrainSettings
from services.chassis.executor.runner import Completed
from services.chassis.executor.warm import POSSIBLE, WarmProcess
from services.trainer.steps.train import train
from tests.split import Split
from tests.trainer import context_of


@pytest.mark.skipif(not POSSIBLE, reason="only Linux has warm processes")
def test_forked_trainings_make_the_same_bytes_and_draw_other_numbers(
    tmp_path: Path, base: Path, dataset: ArtifactRef
) -> None:
    optimiser = OptimiserSettings(learning_rate=1e-2, steps=2, batch_size=4)
    training = TrainingSettings(precision="fp32", max_length=96, lora=LoraSettings(dropout=0.1), optimiser=optimiser)
    given, inputs = TrainSettings(base_model=str(base), training=training), {"dataset": dataset}
    warm = WarmProcess(3600)
    forked = []
    for name in ("one", "other"):
        outcome = Split(tmp_path / name, given, inputs, 1, module="tests.drawing_training", warm=warm).run()
        assert isinstance(outcome, Completed), outcome
        forked.append(outcome.result)
    assert warm.pid is not None, "what the trainer imports can be forked"
    warm.end()
    alone = train(context_of(tmp_path, given, inputs))
    assert {result.outputs["adapter"].sha256 for result in forked} == {alone.outputs["adapter"].sha256}
    assert len({result.metrics["drawn"] for result in forked}) == 2
