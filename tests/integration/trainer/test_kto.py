"""Judged answers without pairs move the policy: wanted ones become likelier, unwanted ones less likely."""

from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.recipes.kto import KtoSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.steps import TrainSettings
from services.chassis.executor.child import Stopping, UserFault
from services.trainer.steps.train import train
from tests.trainer import context_of, lines_of, put_lines, stop_after


def answer(number: int, label: bool, prompt: str = "Where is parcel") -> dict[str, object]:
    messages = [{"role": "user", "content": f"{prompt} {number}?"}]
    return {"id": str(number), "messages": messages, "completion": "Sorry." if label else "No idea, go.", "label": label}


def settings(base: Path, **changes: Any) -> TrainSettings:
    optimiser = OptimiserSettings(learning_rate=3e-3, steps=6, batch_size=4)
    kto = {"precision": "fp32", "max_length": 96, "checkpoint_steps": 2, "optimiser": optimiser, **changes}
    return TrainSettings(base_model=str(base), kto=KtoSettings.model_validate(kto))


@pytest.fixture
def judged(tmp_path: Path) -> ArtifactRef:
    """A `preferences` artifact with judged answers, more wanted than unwanted ones."""
    return put_lines(tmp_path, judged=[answer(number, number % 3 > 0) for number in range(12)])


def align(home: Path, base: Path, data: ArtifactRef, adapter: ArtifactRef | None = None, **more: Any) -> StepResult:
    failures = more.pop("memory_failures", 0)
    inputs = {"preferences": data} | ({"adapter": adapter} if adapter else {})
    return train(context_of(home, settings(base, **more), inputs, step="align", memory_failures=failures))


def curve(result: StepResult) -> list[dict[str, float]]:
    return lines_of(result.outputs["adapter"], "curve.jsonl")


def test_wanted_answers_gain_on_unwanted_ones(tmp_path: Path, base: Path, judged: ArtifactRef) -> None:
    result = align(tmp_path, base, judged)
    points = curve(result)
    assert points[0]["loss"] == pytest.approx(0.5), "at first the model is its reference"
    assert points[-1]["loss"] < points[0]["loss"]
    assert points[-1]["reward_margin"] > 0
    assert [result.metrics[name] for name in ("examples", "examples_wanted")] == [12, 8]


@pytest.mark.parametrize("loss", ["kto", "apo_zero"])
def test_less_memory_changes_the_cut_and_not_the_learning(
    tmp_path: Path, base: Path, judged: ArtifactRef, loss: str
) -> None:
    whole = align(tmp_path / "1", base, judged, loss=loss)
    cut = align(tmp_path / "2", base, judged, loss=loss, memory_failures=2)
    assert [point["loss"] for point in curve(cut)] == pytest.approx([point["loss"] for point in curve(whole)], rel=1e-3)


def test_a_run_that_is_stopped_makes_the_same_adapter(tmp_path: Path, base: Path, judged: ArtifactRef) -> None:
    first = align(tmp_path / "first", base, judged, lora={"dropout": 0.1})
    whole = align(tmp_path / "whole", base, judged, first.outputs["adapter"])
    inputs = {"preferences": judged, "adapter": first.outputs["adapter"]}
    context = context_of(tmp_path, settings(base), inputs, step="align")
    stop_after(context, 3)
    with pytest.raises(Stopping):
        train(context)
    resumed = align(tmp_path, base, judged, first.outputs["adapter"])
    assert curve(resumed) == curve(whole)
    assert resumed.outputs["adapter"].sha256 == whole.outputs["adapter"].sha256


def test_preference_pairs_are_judged_answers_too(tmp_path: Path, base: Path) -> None:
    messages = [{"role": "user", "content": "Where is it?"}]
    pair = {"id": "0", "messages": messages, "chosen": "Sorry about that.", "rejected": "No."}
    result = align(tmp_path, base, put_lines(tmp_path, preferences=[pair]))
    assert [result.metrics[name] for name in ("examples", "examples_wanted")] == [2, 1]


def test_answers_of_one_kind_are_refused(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UserFault) as raised:
        align(tmp_path, base, put_lines(tmp_path, judged=[answer(number, label=True) for number in range(4)]))
    assert raised.value.reasons[0].value == "4 wanted and 0 unwanted answers"


def test_answers_of_one_kind_are_refused_too_where_only_those_fit(tmp_path: Path, base: Path) -> None:
    long = answer(9, label=False, prompt="Where? " * 40)
    with pytest.raises(UserFault, match="2 wanted and 0 unwanted"):
        align(tmp_path, base, put_lines(tmp_path, judged=[answer(0, label=True), answer(1, label=True), long]))


def test_an_answer_that_the_prompt_leaves_no_room_for_is_left_out(tmp_path: Path, base: Path) -> None:
    long = {**answer(9, label=True, prompt="Where? " * 40), "id": "long"}
    result = align(tmp_path, base, put_lines(tmp_path, judged=[answer(0, label=True), long, answer(1, label=False)]))
    assert [result.metrics[name] for name in ("examples", "examples_too_long")] == [2, 1]
    assert result.facts["rows_left_out"].endswith("kto.max_length: long")
