"""Preferences move the policy away from the adapter it began as, by the losses that TRL defines, and nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import logsigmoid
from trl import DPOConfig

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.recipes.dpo import PreferenceSettings
from schemas.recipes.lora import LoraSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.steps import TrainSettings
from services.chassis.executor.child import Context, Stopping, UserFault
from services.language_models.chat_format.chat import Chat, Tokens
from services.trainer.engine.lean_head import put_lean_head
from services.trainer.engine.pairs import PairTrainer
from services.trainer.methods.fitting import columns
from services.trainer.modelling.adapter import new_adapter
from services.trainer.modelling.base import load_base
from services.trainer.modelling.likelihood import log_probabilities, pad
from services.trainer.steps.train import train
from tests.trainer import context_of, lines_of, put_lines

CPU = torch.device("cpu")
PAIRS = [
    (Tokens.of([5, 6, 7], [8, 9, 10, 2]), Tokens.of([5, 6, 7], [11, 12, 2])),
    (Tokens.of([20, 21], [22, 2]), Tokens.of([20, 21], [23, 24, 25, 26, 2])),
]


def pair(number: int, chosen: str = "Sorry about that.", rejected: str = "No.") -> dict[str, object]:
    messages = [{"role": "user", "content": f"Where is parcel {number}?"}]
    return {"id": str(number), "messages": messages, "chosen": chosen, "rejected": rejected, "chosen_score": 1.0}


def settings(base: Path, **changes: Any) -> TrainSettings:
    optimiser = OptimiserSettings(learning_rate=3e-3, steps=6, batch_size=4)
    preference = {"precision": "fp32", "max_length": 96, "optimiser": optimiser, **changes}
    return TrainSettings(base_model=str(base), preference=PreferenceSettings.model_validate(preference))


@pytest.fixture
def pairs(tmp_path: Path) -> ArtifactRef:
    """A `preferences` artifact."""
    return put_lines(tmp_path, preferences=[pair(number) for number in range(10)])


def align(home: Path, base: Path, pairs: ArtifactRef, adapter: ArtifactRef | None = None, **more: Any) -> StepResult:
    failures = more.pop("memory_failures", 0)
    inputs = {"preferences": pairs} | ({"adapter": adapter} if adapter else {})
    return train(context_of(home, settings(base, **more), inputs, step="align", memory_failures=failures))


def curve(result: StepResult) -> list[dict[str, float]]:
    return lines_of(result.outputs["adapter"], "curve.jsonl")


def test_the_margin_grows_from_nothing(tmp_path: Path, base: Path, pairs: ArtifactRef) -> None:
    result = align(tmp_path, base, pairs)
    points = curve(result)
    assert points[0]["reward_margin"] == pytest.approx(0.0, abs=1e-6)
    assert points[-1]["reward_margin"] > points[1]["reward_margin"] > 0
    assert result.metrics["reward_accuracy"] == 1.0
    assert result.metrics["chosen_longer"] == 1.0
    assert result.metrics["examples_used"] == 10


def test_a_new_adapter_has_the_options_that_are_asked_for(tmp_path: Path, base: Path, pairs: ArtifactRef) -> None:
    wide, narrow = (align(tmp_path, base, pairs, lora={"rank": rank}).metrics["trainable_parameters"] for rank in (8, 2))
    assert wide is not None
    assert narrow is not None
    assert wide == 4 * narrow


def test_the_reference_is_the_adapter_that_training_went_on_from(tmp_path: Path, base: Path, pairs: ArtifactRef) -> None:
    first = align(tmp_path, base, pairs)
    second = align(tmp_path, base, pairs, first.outputs["adapter"])
    assert curve(second)[0]["reward_margin"] == pytest.approx(0.0, abs=1e-6)
    assert second.outputs["adapter"].sha256 != first.outputs["adapter"].sha256


def test_less_memory_changes_the_cut_and_not_the_learning(tmp_path: Path, base: Path, pairs: ArtifactRef) -> None:
    whole, cut = align(tmp_path / "1", base, pairs), align(tmp_path / "2", base, pairs, memory_failures=2)
    for name in ("loss", "reward_margin", "reward_accuracy"):
        expected = pytest.approx([point[name] for point in curve(whole)], rel=1e-3, abs=1e-6)
        assert [point[name] for point in curve(cut)] == expected


@pytest.mark.parametrize("steps", [0, 2, 3])
def test_a_run_that_is_stopped_makes_the_same_adapter(tmp_path: Path, base: Path, pairs: ArtifactRef, steps: int) -> None:
    losses = [{"kind": "sigmoid"}, {"kind": "sft", "weight": 0.5}]
    changes = {"losses": losses, "checkpoint_steps": 2}
    first = align(tmp_path / "first", base, pairs)
    whole = align(tmp_path / "whole", base, pairs, first.outputs["adapter"], **changes)
    inputs = {"preferences": pairs, "adapter": first.outputs["adapter"]}
    stop_within_step(context_of(tmp_path, settings(base, **changes), inputs, step="align"), steps)
    resumed = align(tmp_path, base, pairs, first.outputs["adapter"], **changes)
    assert curve(resumed) == curve(whole)
    assert resumed.outputs["adapter"].sha256 == whole.outputs["adapter"].sha256


def stop_within_step(context: Context, steps: int) -> None:
    """Ask the run to end once it has reported so many steps."""

    def progress(done: int, *_: Any, **__: Any) -> None:
        if done >= steps:
            context.stop()

    context.progress = progress  # type: ignore[method-assign]
    with pytest.raises(Stopping):
        train(context)


def test_without_a_pair_there_is_nothing_to_learn(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UserFault) as raised:
        align(tmp_path, base, put_lines(tmp_path, preferences=[]))
    assert raised.value.reasons[0].field == "feedback"


def test_anchored_preference_optimisation_takes_the_place_of_the_sigmoid(
    tmp_path: Path, base: Path, pairs: ArtifactRef
) -> None:
    losses = [{"kind": "sigmoid", "weight": 2.0}]
    anchored = align(tmp_path, base, pairs, losses=losses, apo="zero")
    assert curve(anchored)[0]["loss"] == pytest.approx(2.0), "both answers are as likely as under the reference"
    with pytest.raises(ValueError, match="apo"):
        settings(base, losses=[{"kind": "sft"}], apo="zero")


def test_a_request_is_refused_when_no_pair_fits(tmp_path: Path, base: Path, pairs: ArtifactRef) -> None:
    with pytest.raises(UserFault) as raised:
        align(tmp_path, base, pairs, max_length=24)
    assert raised.value.reasons[0].field == "preference.max_length"


def test_pairs_that_teach_nothing_once_cut_are_left_out_and_counted(tmp_path: Path, base: Path) -> None:
    long = {**pair(1), "id": "long", "messages": [{"role": "user", "content": "Where? " * 50}]}
    equal = pair(2, chosen="x" * 90 + "good", rejected="x" * 90 + "bad")
    result = align(tmp_path, base, put_lines(tmp_path, preferences=[pair(0), long, equal, pair(3)]))
    counted = [result.metrics[name] for name in ("examples", "examples_too_long", "examples_equal_once_cut")]
    assert counted == [2, 1, 1]
    assert "1 of 4 pairs have no token of an answer" in result.facts["rows_left_out"]
    assert "max_length: 2" in result.facts["rows_left_out"]


def adapted(base: Path, seed: int) -> Any:
    """A model whose adapter changes what it computes."""
    model = new_adapter(load_base(base, torch.float32, CPU), LoraSettings(rank=4), seed)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.1
    return model.eval()


def sums(model: Any) -> torch.Tensor:
    """Return the log-probability of each answer, [chosen and rejected, pairs], one forward pass each."""
    answers = [pair[side] for side in (0, 1) for pair in PAIRS]
    with torch.no_grad():
        values = [log_probabilities(model, pad([answer], 0, CPU))[0].sum() for answer in answers]
    return torch.stack(values).view(2, -1)


def expected_loss(kind: str, policy: torch.Tensor, reference: torch.Tensor, beta: float) -> float:
    """The loss as its paper defines it."""
    chosen, rejected = policy - reference
    margin = beta * (chosen - rejected)
    lengths = torch.tensor([[len(pair[side].completion) for pair in PAIRS] for side in (0, 1)])
    match kind:
        case "sigmoid":
            losses = -logsigmoid(margin)
        case "hinge":
            losses = torch.relu(1 - margin)
        case "ipo":
            losses = (chosen / lengths[0] - rejected / lengths[1] - 1 / (2 * beta)) ** 2
        case "robust":
            losses = -(0.9 * logsigmoid(margin) - 0.1 * logsigmoid(-margin)) / (1 - 2 * 0.1)
        case "apo_zero":
            losses = 1 - torch.sigmoid(beta * chosen) + torch.sigmoid(beta * rejected)
        case "apo_down":
            losses = torch.sigmoid(beta * chosen) + 1 - torch.sigmoid(margin)
        case _:
            losses = -policy[0].sum() / lengths[0].sum()
    return float(losses.mean())


@pytest.mark.parametrize("size", [2, 1])
@pytest.mark.parametrize(
    "kinds", [["sigmoid"], ["ipo"], ["hinge"], ["robust"], ["apo_zero"], ["apo_down"], ["sft"], ["sigmoid", "sft"]]
)
def test_the_losses_are_those_of_the_papers_however_the_batch_is_cut(
    tmp_path: Path, base: Path, kinds: Sequence[str], size: int
) -> None:
    policy, reference = adapted(base, 0), adapted(base, 1)
    losses = dict(zip(kinds, [1.0, 0.5], strict=False))
    config = DPOConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, beta=0.3, label_smoothing=0.1, max_length=None, max_steps=1,
        per_device_train_batch_size=size, gradient_accumulation_steps=2 // size, learning_rate=0.0, logging_steps=1,
        remove_unused_columns=False, precompute_ref_log_probs=True, precompute_ref_batch_size=size, report_to=[],
        activation_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    rows = Dataset.from_list([{**columns("chosen", better), **columns("rejected", worse)} for better, worse in PAIRS])
    trainer = PairTrainer(reference, config, rows, Chat(base), losses, lambda: None)
    put_lean_head(trainer.model)
    trainer.model.load_state_dict(policy.state_dict(), strict=True)
    trainer.train()
    terms = {kind: expected_loss(kind, sums(policy), sums(adapted(base, 1)), 0.3) for kind in losses}
    expected = sum(weight * terms[kind] for kind, weight in losses.items())
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-4)
