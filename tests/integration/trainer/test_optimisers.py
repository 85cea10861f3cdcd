"""Every optimiser learns, keeps its whole state in a checkpoint and goes on from it, or is refused before anything is loaded."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from schemas.artifacts import ArtifactRef
from schemas.recipes.lora import LoraSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import TrainSettings
from services.chassis.executor.child import Context, Stopping
from services.trainer.steps.train import train
from tests.base_models import refusal
from tests.trainer import context_of, lines_of

bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")


def eight_bits(home: Path, base: Path, data: ArtifactRef) -> Context:
    """A run whose adapter has matrices that are quantised, and others that are too small for it."""
    optimiser = OptimiserSettings(name="adamw_8bit", learning_rate=1e-2, steps=6, batch_size=4)
    training = TrainingSettings(
        precision="fp32", max_length=96, checkpoint_steps=2, optimiser=optimiser, lora=LoraSettings(rank=96)
    )
    return context_of(home, TrainSettings(base_model=str(base), training=training), {"dataset": data})


@bitsandbytes
def test_a_quantised_optimiser_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(
    tmp_path: Path, base: Path, dataset: ArtifactRef
) -> None:
    whole = train(eight_bits(tmp_path / "whole", base, dataset))
    curve = lines_of(whole.outputs["adapter"], "curve.jsonl")
    assert curve[-1]["loss"] < curve[0]["loss"]
    context = eight_bits(tmp_path / "stopped", base, dataset)
    progress = context.progress

    def stop_after_three(done: int, *arguments: Any, **figures: Any) -> None:
        progress(done, *arguments, **figures)
        if done >= 3:
            context.stop()

    context.progress = stop_after_three  # type: ignore[method-assign]
    with pytest.raises(Stopping):
        train(context)
    (saved,) = (tmp_path / "stopped").glob("checkpoints/job/step/*/*/step-00000003")
    kinds = {str(tensor.dtype) for tensor in load_file(saved / "state1.safetensors").values()}
    assert kinds == {"torch.uint8", "torch.float32"}
    assert not list(saved.glob("*.pt"))
    resumed = train(eight_bits(tmp_path / "stopped", base, dataset))
    assert resumed.outputs["adapter"].sha256 == whole.outputs["adapter"].sha256


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"optimiser": {"name": "adamw_8bit"}}, "training.optimiser.name"), ({"quantization": "nf4"}, "training.quantization"),
    ],
    ids=["adamw_8bit", "nf4"],
)  # fmt: skip
def test_what_needs_bitsandbytes_is_refused_by_prepare_where_it_does_not_work(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], field: str
) -> None:
    class Broken:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "bitsandbytes":
                raise ImportError("no library for this machine")

    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    reason = refusal(tmp_path, base, training=TrainingSettings.model_validate(changes))
    assert reason.field == field
    assert "bitsandbytes" in reason.message
