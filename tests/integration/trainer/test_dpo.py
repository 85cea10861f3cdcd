"""Preferences move the policy away from the adapter it began as, by the losses that TRL defines, and nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.recipes import LoraSettings, OptimiserSettings, PreferenceSettings
from schemas.steps import TrainSettings
from services.chassis.executor.child import UserFault
from services.trainer.modelling.adapter import new_adapter
from services.trainer.modelling.base import load_base
from services.trainer.modelling.chat import Tokens
from services.trainer.steps.train import train
from services.trainer.training.dpo import PreferencePairs
from services.trainer.training.preference_losses import ROBUST_SMOOTHING
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


def test_without_a_pair_there_is_nothing_to_learn(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UserFault) as raised:
        align(tmp_path, base, put_lines(tmp_path, preferences=[]))
    assert raised.value.reasons[0].field == "feedback"


def test_a_pair_whose_answer_does_not_fit_is_refused(tmp_path: Path, base: Path, pairs: ArtifactRef) -> None:
    with pytest.raises(UserFault) as raised:
        align(tmp_path, base, pairs, max_length=24)
    assert raised.value.reasons[0].field == "preference.max_length"


@pytest.fixture(scope="module")
def policies(base: Path) -> tuple[Any, Any]:
    """A policy and its reference, which are not the same."""
    made = []
    for seed in (0, 1):
        adapted = new_adapter(load_base(base, torch.float32, CPU), LoraSettings(rank=4), seed)
        generator = torch.Generator().manual_seed(seed)
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.data = torch.randn(weight.shape, generator=generator) * 0.1
        made.append(adapted.merge_and_unload().eval())
    return made[0], made[1]


@pytest.fixture(scope="module")
def trl(base: Path, policies: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """TRL's trainer for the same policies; what it trains on here is given to it batch by batch."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    config = DPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")), use_cpu=True, bf16=False, beta=0.3, loss_type=["sigmoid"],
        label_smoothing=ROBUST_SMOOTHING, report_to=[], gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    policy, reference = policies
    tokenizer = AutoTokenizer.from_pretrained(base)
    return DPOTrainer(model=policy, ref_model=reference, args=config, train_dataset=rows, processing_class=tokenizer)


@pytest.mark.parametrize("kinds", [["sigmoid"], ["ipo"], ["hinge"], ["robust"], ["sft"], ["sigmoid", "sft"]])
def test_the_losses_are_trls(policies: tuple[Any, Any], trl: Any, kinds: Sequence[str]) -> None:
    policy, reference = policies
    weights = [1.0, 0.5][: len(kinds)]
    losses = [{"kind": kind, "weight": weight} for kind, weight in zip(kinds, weights, strict=True)]
    preference = PreferenceSettings.model_validate({"beta": 0.3, "losses": losses})
    objective = PreferencePairs(PAIRS, [0, 1], preference, 2, 0, CPU)
    with torch.no_grad():
        objective.begin(reference, lambda: None)
        ours, _ = objective.loss(policy, [0, 1], [0, 1])
    trl.loss_types, trl.loss_weights = list(kinds), weights
    answers = [answer for side in (0, 1) for answer in (PAIRS[0][side], PAIRS[1][side])]
    width = max(map(len, answers))
    inputs = {
        "input_ids": torch.tensor([[*row.prompt, *row.completion] + [0] * (width - len(row)) for row in answers]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in answers]),
        "completion_mask": torch.tensor(
            [[0] * len(row.prompt) + [1] * len(row.completion) + [0] * (width - len(row)) for row in answers]
        ),
    }
    with torch.no_grad():
        theirs = trl.compute_loss(policy, inputs)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)
