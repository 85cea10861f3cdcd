"""`prepare` takes the version that a job starts from as inputs, and refuses settings that an adapter has already decided."""

from pathlib import Path
from typing import Any

import pytest

from schemas.recipes.dataset import DatasetSettings
from schemas.recipes.lora import LoraSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import PrepareSettings, TrainSettings
from services.chassis.executor.child import UserFault
from services.trainer.steps.prepare import prepare
from services.trainer.steps.train import train
from tests.base_models import dressed, prepare_job, random_model
from tests.trainer import context_of


def trained(home: Path, base: Path, **changes: Any) -> Any:
    """Return the artifact of a training of one step."""
    optimiser = OptimiserSettings(steps=1, batch_size=2)
    settings = TrainingSettings(precision="fp32", max_length=128, optimiser=optimiser, **changes)
    data = prepare_job(home, base).outputs["dataset"]
    return train(context_of(home, TrainSettings(base_model=str(base), training=settings), {"dataset": data})).outputs


def prepared(home: Path, base: Path, inputs: Any, **training: Any) -> Any:
    settings = PrepareSettings(
        base_model=str(base), dataset=DatasetSettings(reference=str(home / "data")), max_length=128,
        training=TrainingSettings(**training),
    )  # fmt: skip
    return prepare(context_of(home, settings, inputs))


def test_an_adapter_is_checked_with_its_base_and_keeps_its_options(tmp_path: Path, base: Path) -> None:
    inputs = trained(tmp_path, base)
    assert prepared(tmp_path, base, inputs).outputs
    for changes, field in (
        ({"lora": LoraSettings(rank=4)}, "training.lora"),
        ({"adaptation": "full"}, "training.adaptation"),
    ):
        with pytest.raises(UserFault) as caught:
            prepared(tmp_path, base, inputs, **changes)
        assert caught.value.reasons[0].field == field
    other = dressed(tmp_path / "other", random_model("Qwen2"))
    with pytest.raises(UserFault, match="does not fit the base model"):
        prepared(tmp_path, other, inputs)


def test_a_whole_model_is_checked_in_place_of_the_base_model(tmp_path: Path, base: Path) -> None:
    inputs = trained(tmp_path, base, adaptation="full")
    result = prepared(tmp_path, Path("router@1.0.0"), inputs)
    assert result.facts["base_model_sha256"] == inputs["model"].sha256
