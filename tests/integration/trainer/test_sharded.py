"""Two processes that share the weights of a training make what one process makes, and checkpoints of either serve the other."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from schemas.artifacts import ArtifactRef
from schemas.recipes.dpo import PreferenceSettings
from schemas.recipes.methods import MethodSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import TrainSettings
from services.chassis.executor.child import UserFault
from services.chassis.executor.runner import Completed, Stopped
from services.trainer.modelling.adapter import RECORD
from services.trainer.modelling.architecture import architecture_of
from services.trainer.modelling.memory import MemoryEstimate, shared_among
from services.trainer.modelling.sharded import largest_share, refuse_unshareable
from services.trainer.settings import TrainerSettings
from services.trainer.steps.train import train
from tests.integration.trainer.test_split import OPTIMISER, TWO_GPUS, curve, settings, tensors
from tests.split import Split, Trainings, made_by, of_trainings
from tests.trainer import context_of, weights_of

EVEN = 260
"""A number of tokens that two processes share evenly; the base model of the tests has one less."""


def even(folder: Path, into: Path) -> Path:
    """Write the base model with an even vocabulary."""
    shutil.copytree(folder, into)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(EVEN, mean_resizing=False)
    model.save_pretrained(into)
    return into


def one(home: Path, training: tuple[TrainSettings, Mapping[str, ArtifactRef]], name: str) -> ArtifactRef:
    """Return what this process makes alone, from the checkpoints that are in its home."""
    made = weights_of(train(context_of(home, *training, step=name)))
    assert made is not None
    return made


def assert_same(theirs: ArtifactRef, mine: ArtifactRef) -> None:
    """Equal up to rounding."""
    assert curve(theirs) == pytest.approx(curve(mine), rel=1e-5, abs=1e-5)
    torch.testing.assert_close(tensors(theirs), tensors(mine), rtol=1e-3, atol=3e-4)


def test_processes_that_share_weights_make_what_one_makes_and_each_goes_on_from_checkpoints_of_the_other(
    tmp_path: Path, base: Path, dataset: ArtifactRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    whole = settings(even(base, tmp_path / "even"), lora={}, adaptation="full", packing=True)
    recomputed = OPTIMISER.model_copy(update={"activation_checkpointing": True})
    adapter = settings(base, lora={"dropout": 0.0}, optimiser=recomputed, checkpoint_steps=3)
    inputs = {"dataset": dataset}
    mine = {"adapter": one(alone, (adapter, inputs), "adapter"), "whole": one(alone, (whole, inputs), "whole")}

    asked: Trainings = {"adapter": (adapter, inputs), "whole": (whole, inputs), "stopped": (whole, inputs)}
    run = of_trainings(shared, asked, 2, "fsdp", held_at=4)
    shutil.copytree(alone / "checkpoints" / "job" / "whole", run.checkpoints / "whole")
    outcome = run.run(4, Split.stop, of="stopped/")
    assert isinstance(outcome, Stopped), outcome
    for name, theirs in made_by(shared).items():
        assert_same(theirs, mine[name])
        record = json.loads((Path(theirs.uri) / RECORD).read_bytes())
        found = tuple(record[fact] for fact in ("device", "processes", "strategy", "backend"))
        assert found == ("cpu", "2", "fsdp", "gloo"), name
        assert int(record["threads"]) >= 1
    log = run.log.read_text()
    assert "2 processes train, connected by gloo, with the strategy fsdp" in log
    assert "continuing from checkpoint" in log

    shutil.copytree(run.checkpoints / "stopped", alone / "checkpoints" / "job" / "stopped")
    assert_same(one(alone, asked["stopped"], "stopped"), mine["whole"])


@TWO_GPUS
def test_each_gpu_has_its_part_of_the_weights(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    outcome = Split(tmp_path, settings(base), {"dataset": dataset}, 2, strategy="fsdp").run()
    assert isinstance(outcome, Completed), outcome
    facts = outcome.result.facts
    assert (facts["device"], facts["strategy"], facts["backend"]) == ("cuda", "fsdp", "nccl")


@pytest.mark.parametrize(
    ("method", "field", "words"),
    [
        (PreferenceSettings(), "preference", "only trainings of the method sft share weights"),
        ({"quantization": "nf4"}, "training.quantization", "weights of 4 bits cannot be shared"),
        ({"lora": {"dora": True}}, "training.lora.dora", "magnitudes of weights cannot be shared"),
        ({"lora": {"initialisation": "pissa"}}, "training.lora.initialisation", "weights that it decomposes"),
        ({"lora": {"modules_to_save": ["lm_head"]}}, "training.lora.modules_to_save", "modules of its own"),
        (
            {"adaptation": "full", "optimiser": {"name": "adafactor"}},
            "training.optimiser.name",
            "the state of this optimiser",
        ),
        ({"adaptation": "full"}, "base_model", "whose 259 tokens 2 processes cannot share evenly"),
    ],
)
def test_what_cannot_share_weights_is_refused_in_words(
    base: Path, method: MethodSettings | dict[str, Any], field: str, words: str
) -> None:
    asked = TrainingSettings.model_validate(method) if isinstance(method, dict) else method
    section = "training" if isinstance(method, dict) else "preference"
    refuse_unshareable(section, asked, architecture_of(base), None, 1)
    with pytest.raises(UserFault, match=words) as refused:
        refuse_unshareable(section, asked, architecture_of(base), None, 2)
    [reason] = refused.value.reasons
    assert reason.field == field
    assert "NEUROWEAVER_TRAINER_STRATEGY to ddp" in reason.remedy


def test_adapters_of_an_uneven_vocabulary_share_weights(base: Path) -> None:
    refuse_unshareable("training", TrainingSettings(), architecture_of(base), None, 2)


def test_processes_that_share_weights_are_estimated_to_need_less_each_on_gpus(base: Path) -> None:
    model = architecture_of(base).empty()
    one = MemoryEstimate(weights=800, adapter=8, gradients=8, optimiser=16, activations=50, logits=50, overhead=100)
    fetched = round(2 * 800 * largest_share(model))
    assert shared_among(one, model, 8, "cuda", trains_all=False) == replace(one, weights=100 + fetched)
    on_heap = shared_among(one, model, 8, "cpu", trains_all=False)
    assert on_heap == replace(one, weights=100 + 1600), "the heap keeps what was fetched"


def test_where_all_weights_are_trained_each_process_has_its_part_of_gradients_and_moments(base: Path) -> None:
    model = architecture_of(base).empty()
    one = MemoryEstimate(weights=800, adapter=0, gradients=800, optimiser=1600, activations=50, logits=50, overhead=100)
    each = shared_among(one, model, 8, "cuda", trains_all=True)
    assert (each.optimiser, each.gradients < one.gradients, each.total < one.total) == (200, True, True)
    assert shared_among(one, model, 8, "cpu", trains_all=True).weights == 100 + 2400, "it gathers weights and moments"


def test_weights_are_shared_by_two_processes_or_more() -> None:
    with pytest.raises(ValueError, match="set the number of processes that share the weights"):
        TrainerSettings.model_validate({"trainer_strategy": "fsdp"})
