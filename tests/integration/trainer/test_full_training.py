"""All weights are trained in fp32, leave as a whole model that serves by itself, and resume to the same bytes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from schemas.artifacts import ArtifactRef
from schemas.recipes.evaluation import EvaluationSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import EvaluateSettings, TrainSettings
from services.chassis.executor.child import Context, Stopping, UserFault
from services.language_models.chat_format.chat import Chat
from services.trainer.modelling.base import load_base
from services.trainer.steps.evaluate import evaluate
from services.trainer.steps.train import train
from tests.base_models import configured
from tests.trainer import context_of, lines_of


def full(home: Path, base: Path, data: ArtifactRef, **changes: Any) -> Context:
    optimiser = OptimiserSettings(learning_rate=3e-3, steps=6, batch_size=4)
    training = {"adaptation": "full", "precision": "fp32", "max_length": 96, "checkpoint_steps": 2, "optimiser": optimiser}
    settings = TrainingSettings.model_validate({**training, **changes})
    return context_of(home, TrainSettings(base_model=str(base), training=settings), {"dataset": data})


def stopped_after(steps: int, context: Context) -> None:
    progress = context.progress

    def stopping(done: int, *arguments: Any, **figures: Any) -> None:
        progress(done, *arguments, **figures)
        if done >= steps:
            context.stop()

    context.progress = stopping  # type: ignore[method-assign]
    with pytest.raises(Stopping):
        train(context)


def test_the_model_that_all_weights_made_is_the_one_that_is_evaluated(
    tmp_path: Path, base: Path, dataset: ArtifactRef
) -> None:
    result = train(full(tmp_path, base, dataset))
    assert set(result.outputs) == {"model", "rows_used"}
    folder = Path(result.outputs["model"].uri)
    curve = lines_of(result.outputs["model"], "curve.jsonl")
    assert curve[-1]["loss"] < 0.9 * curve[0]["loss"]
    before, after = load_file(base / "model.safetensors"), load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(weight.dtype == torch.float32 for weight in after.values())
    assert not any(torch.equal(before[name], after[name]) for name in before)
    assert result.metrics["trainable_parameters"] == sum(weight.numel() for weight in before.values())
    assert Chat(folder).template_sha256 == result.facts["chat_template_sha256"]
    assert json.loads((folder / "config.json").read_text())["pad_token_id"] == 0
    wanted = EvaluationSettings(metrics=("loss",), max_new_tokens=3, samples=1, precision="fp32")
    settings = EvaluateSettings(base_model=str(base), evaluation=wanted)
    measured = [
        evaluate(context_of(tmp_path, settings, {"dataset": dataset, **inputs})).metrics["loss"]
        for inputs in ({}, {"model": result.outputs["model"]})
    ]
    assert measured[0] is not None
    assert measured[1] is not None
    assert measured[1] < measured[0]


def test_a_stopped_run_resumes_to_the_same_model(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    whole = train(full(tmp_path / "whole", base, dataset))
    stopped_after(3, full(tmp_path / "stopped", base, dataset))
    resumed = train(full(tmp_path / "stopped", base, dataset))
    assert resumed.outputs["model"].sha256 == whole.outputs["model"].sha256


def test_small_updates_of_a_base_in_bf16_are_not_lost(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    small = tmp_path / "bf16"
    shutil.copytree(base, small)
    load_base(base, torch.bfloat16, torch.device("cpu")).save_pretrained(small)
    configured(small, dtype="bfloat16")
    optimiser = OptimiserSettings(learning_rate=1e-6, steps=2, batch_size=4)
    result = train(full(tmp_path, small, dataset, precision="bf16", optimiser=optimiser))
    before = load_file(small / "model.safetensors")
    after = load_file(Path(result.outputs["model"].uri) / "model.safetensors")
    assert any(not torch.equal(before[name].float(), after[name]) for name in before)
    assert json.loads((Path(result.outputs["model"].uri) / "config.json").read_text())["dtype"] == "float32"


def test_a_disk_without_room_for_the_checkpoints_is_found_before_the_model_is_loaded(
    tmp_path: Path, base: Path, dataset: ArtifactRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = type("Usage", (), {"free": 100_000})
    monkeypatch.setattr("services.trainer.steps.room.shutil.disk_usage", lambda _: left)
    with pytest.raises(UserFault, match="a checkpoint of all weights"):
        train(full(tmp_path, base, dataset))


@pytest.mark.parametrize("changes", [{"quantization": "nf4"}, {"lora": {"rslora": True}}], ids=["nf4", "rslora"])
def test_what_belongs_to_an_adapter_is_refused_for_all_weights(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="adaptation: full"):
        TrainingSettings.model_validate({"adaptation": "full", **changes})
