"""A checkpoint of another recipe must never be resumed, and a smaller micro-batch is the same recipe."""

import pytest

from schemas.artifacts import ArtifactRef
from schemas.recipes.lora import LoraSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from services.trainer.engine.recipe import digest, recipe_of

DATA = ArtifactRef(uri="/data", sha256="a" * 64, size=1)
OPTIMISER = OptimiserSettings(batch_size=8)
SETTINGS = TrainingSettings(optimiser=OPTIMISER)


def of(settings: TrainingSettings = SETTINGS, base: str = "b" * 64, data: ArtifactRef = DATA) -> str:
    return digest(recipe_of(settings, base, "template", {"dataset": data}))


@pytest.mark.parametrize(
    "other",
    [
        of(base="c" * 64),
        of(data=DATA.model_copy(update={"sha256": "d" * 64})),
        of(SETTINGS.model_copy(update={"seed": 1})),
        of(SETTINGS.model_copy(update={"lora": LoraSettings(rank=8)})),
        of(SETTINGS.model_copy(update={"max_length": 256})),
        of(SETTINGS.model_copy(update={"optimiser": OptimiserSettings(batch_size=8, learning_rate=1e-4)})),
        of(SETTINGS.model_copy(update={"optimiser": OptimiserSettings(batch_size=16)})),
    ],
)
def test_whatever_decides_the_result_changes_the_digest(other: str) -> None:
    assert other != of()


def test_what_does_not_decide_the_result_leaves_the_digest_alone() -> None:
    cut = OptimiserSettings(batch_size=8, micro_batch_size=2, activation_checkpointing=True)
    assert of(SETTINGS.model_copy(update={"optimiser": cut, "checkpoint_steps": 3})) == of()
    assert of(data=DATA.model_copy(update={"uri": "s3://elsewhere"})) == of()
