"""A model that is distilled comes near its teacher on its own answers, from a teacher that `prepare` has proved to read its tokens."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.recipes.dataset import DatasetSettings
from schemas.recipes.distill import DistillSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.steps import PrepareSettings, TrainSettings
from services.chassis.executor.child import Stopping, UserFault
from services.trainer.steps.prepare import prepare
from services.trainer.steps.train import train
from tests.base_models import configured, dressed, random_model
from tests.tiny_model import build
from tests.trainer import context_of, lines_of, put_lines, row, stop_after


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of another model with the same tokenizer, wider and shallower."""
    return build(tmp_path_factory.mktemp("teacher") / "model", seed=1, hidden=64, layers=1)


@pytest.fixture
def prompts(tmp_path: Path) -> ArtifactRef:
    return put_lines(tmp_path, train=[row(number, f"{'colour ' * (number % 4)}{number}?", "red.") for number in range(12)])


def settings(base: Path, teacher: Path, **changes: Any) -> TrainSettings:
    optimiser = {"learning_rate": 1e-2, "steps": 4, "batch_size": 4, **changes.pop("optimiser", {})}
    distill = {
        "teacher": str(teacher), "precision": "fp32", "max_prompt_tokens": 96, "max_new_tokens": 8, "checkpoint_steps": 2,
        "optimiser": optimiser, **changes,
    }  # fmt: skip
    return TrainSettings(base_model=str(base), distill=DistillSettings.model_validate(distill))


def learn(home: Path, base: Path, teacher: Path, data: ArtifactRef, *, failures: int = 0, **changes: Any) -> StepResult:
    return train(context_of(home, settings(base, teacher, **changes), {"dataset": data}, memory_failures=failures))


def curve(result: StepResult) -> list[dict[str, float]]:
    return lines_of(result.outputs["adapter"], "curve.jsonl")


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_divergence_from_the_teacher_falls(
    tmp_path: Path, base: Path, teacher: Path, prompts: ArtifactRef, beta: float
) -> None:
    result = learn(tmp_path, base, teacher, prompts, beta=beta, optimiser={"steps": 8})
    points = curve(result)
    assert points[-1]["loss"] < 0.9 * points[0]["loss"]
    assert 0 < points[-1]["answer_tokens"] <= 8
    record = json.loads((Path(result.outputs["adapter"].uri) / "training.json").read_text())
    assert record["teacher_sha256"] == result.facts["teacher_sha256"]


def test_less_memory_changes_the_cut_and_not_the_learning(
    tmp_path: Path, base: Path, teacher: Path, prompts: ArtifactRef
) -> None:
    whole = learn(tmp_path / "1", base, teacher, prompts)
    cut = learn(tmp_path / "2", base, teacher, prompts, failures=2)
    assert [point["loss"] for point in curve(cut)] == pytest.approx([point["loss"] for point in curve(whole)], rel=1e-3)


def test_a_run_that_is_stopped_makes_the_same_adapter(
    tmp_path: Path, base: Path, teacher: Path, prompts: ArtifactRef
) -> None:
    options: dict[str, Any] = {"lora": {"dropout": 0.1}}
    whole = learn(tmp_path / "whole", base, teacher, prompts, **options)
    context = context_of(tmp_path, settings(base, teacher, **options), {"dataset": prompts})
    stop_after(context, 3)
    with pytest.raises(Stopping):
        train(context)
    resumed = learn(tmp_path, base, teacher, prompts, **options)
    assert curve(resumed) == curve(whole)
    assert resumed.outputs["adapter"].sha256 == whole.outputs["adapter"].sha256


def test_prompts_that_are_too_long_are_left_out_and_counted(tmp_path: Path, base: Path, teacher: Path) -> None:
    data = put_lines(tmp_path, train=[row(0, "one?", "red."), row(1, "colour " * 40, "red.")])
    result = learn(tmp_path, base, teacher, data)
    assert [result.metrics[name] for name in ("examples", "prompts_too_long")] == [1, 1]
    assert "distill.max_prompt_tokens" in result.facts["rows_left_out"]


def test_a_teacher_that_changed_since_it_was_checked_is_refused(
    tmp_path: Path, base: Path, teacher: Path, prompts: ArtifactRef
) -> None:
    checked = StepResult(facts={"teacher_sha256": "0" * 64})
    with pytest.raises(UserFault) as raised:
        train(context_of(tmp_path, settings(base, teacher), {"dataset": prompts}, results={"prepare": checked}))
    assert raised.value.reasons[0].field == "distill.teacher"


def prepared(home: Path, base: Path, teacher: Path, **distill: Any) -> StepResult:
    data = home / "data.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"{number}?", "completion": "red."}) + "\n" for number in range(20)))
    given = PrepareSettings(
        base_model=str(base), dataset=DatasetSettings(reference=str(data)), max_length=64,
        distill=DistillSettings.model_validate({"teacher": str(teacher), "max_prompt_tokens": 56, "max_new_tokens": 8, **distill}),
    )  # fmt: skip
    return prepare(context_of(home, given))


def test_prepare_records_the_teacher_that_it_checked(tmp_path: Path, base: Path, teacher: Path) -> None:
    result = prepared(tmp_path, base, teacher)
    assert result.facts["teacher_sha256"]
    assert result.needs["distill"].memory_bytes > 0


@pytest.mark.parametrize("broken", ["tokenizer", "vocabulary", "context", "gone"])
def test_prepare_refuses_a_teacher_that_the_model_cannot_learn_from(tmp_path: Path, base: Path, broken: str) -> None:
    other = build(tmp_path / "other")
    match broken:
        case "tokenizer":
            known = json.loads((other / "tokenizer.json").read_text())
            words = list(known["model"]["vocab"])
            first, second = words[40], words[41]
            vocab = known["model"]["vocab"]
            vocab[first], vocab[second] = vocab[second], vocab[first]
            (other / "tokenizer.json").write_text(json.dumps(known))
            expected = "its tokenizer is not the base model's: 2 tokens have other numbers"
        case "vocabulary":
            other = dressed(tmp_path / "larger", random_model("Llama", vocab_size=400))
            expected = "it knows 400 tokens, and the base model"
        case "context":
            configured(other, max_position_embeddings=32)
            expected = "it reads 32 tokens at most"
        case _:
            other = tmp_path / "gone"
            expected = "no such file or folder"
    with pytest.raises(UserFault) as raised:
        prepared(tmp_path, base, other)
    assert raised.value.reasons[0].field == "distill.teacher"
    assert expected in raised.value.reasons[0].message


def test_prepare_refuses_an_adapter_on_the_head(tmp_path: Path, base: Path, teacher: Path) -> None:
    with pytest.raises(UserFault) as raised:
        prepared(tmp_path, base, teacher, lora={"targets": ["q_proj", "lm_head"]})
    assert raised.value.reasons[0].field == "distill.lora.targets"


def test_the_optimiser_of_a_request_keeps_the_defaults_of_the_method() -> None:
    given = DistillSettings.model_validate({"optimiser": {"steps": 3}})
    assert given.optimiser == OptimiserSettings(learning_rate=2e-4, steps=3)
