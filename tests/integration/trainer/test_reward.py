"""A reward model learns which of two answers is better, is measured on pairs that it did not learn, and leaves with its head."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.lines import Message
from schemas.recipes.dataset import DatasetSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.reward import RewardModelSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import PrepareSettings, TrainSettings
from services.chassis.executor.child import Stopping, UserFault
from services.language_models.chat_format.chat import Chat
from services.language_models.scoring import load_reward_model, padding_beside, scored_tokens, scores_of
from services.trainer.steps.train import train
from tests.base_models import dressed, random_model
from tests.trainer import context_of, lines_of, put_lines, stop_after

CPU = torch.device("cpu")


def pair(number: int, chosen: str = "Sorry about that.", rejected: str = "No idea.", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Where is parcel {number}?"}]
    return {"id": str(number), "messages": messages, "chosen": chosen, "rejected": rejected, **more}


def settings(base: Path, **changes: Any) -> TrainSettings:
    optimiser = OptimiserSettings(learning_rate=1e-2, steps=6, batch_size=4)
    reward = {"precision": "fp32", "max_length": 128, "checkpoint_steps": 2, "optimiser": optimiser, **changes}
    return TrainSettings(base_model=str(base), reward=RewardModelSettings.model_validate(reward))


@pytest.fixture
def pairs(tmp_path: Path) -> ArtifactRef:
    """A `preferences` artifact with pairs of every split."""
    held_out = {f"preferences-{split}": [pair(number) for number in range(20, 26)] for split in ("validation", "test")}
    return put_lines(tmp_path, preferences=[pair(number) for number in range(12)], **held_out)


def judge(home: Path, base: Path, data: ArtifactRef, adapter: ArtifactRef | None = None, **more: Any) -> StepResult:
    failures = more.pop("memory_failures", 0)
    inputs = {"preferences": data} | ({"adapter": adapter} if adapter else {})
    return train(context_of(home, settings(base, **more), inputs, step="judge", memory_failures=failures))


def curve(result: StepResult) -> list[dict[str, float]]:
    return lines_of(result.outputs["adapter"], "curve.jsonl")


def test_better_answers_gain_on_worse_ones_and_held_out_pairs_show_it(
    tmp_path: Path, base: Path, pairs: ArtifactRef
) -> None:
    result = judge(tmp_path, base, pairs)
    points = curve(result)
    assert points[-1]["loss"] < 0.5 * points[0]["loss"]
    assert points[-1]["reward_margin"] > points[0]["reward_margin"]
    assert points[-1]["reward_accuracy"] == points[-1]["validation_accuracy"] == 1
    assert result.metrics["held_out_pairs"] == 6
    assert result.metrics["held_out_accuracy"] == result.metrics["held_out_accuracy_low"] == 1
    assert result.facts["scores_answers"] == "true"


def test_what_is_stored_scores_as_the_library_itself_scores_it(
    tmp_path: Path, base: Path, pairs: ArtifactRef, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    folder = Path(judge(tmp_path, base, pairs).outputs["adapter"].uri)
    record = json.loads((folder / "training.json").read_text())
    assert (record["method"], record["scores_answers"]) == ("reward", "true")
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".jsonl", ".safetensors", ".jinja"}
    capfd.readouterr()
    tokenizer = Chat(folder).tokenizer
    asked = [Message(role="user", content="Where is parcel 40?")]
    chats = [(asked, answer, ()) for answer in ("Sorry about that.", "No idea.")]
    rows = scored_tokens(tokenizer, chats)
    model = load_reward_model(base, folder, torch.float32, CPU)
    assert "MISSING" not in capfd.readouterr().err + caplog.text, "no warning of a head that is drawn at random"
    alone = [scores_of(model, [row], padding_beside([row]))[0] for row in rows]
    together = scores_of(model, rows, padding_beside(rows))
    assert together == pytest.approx(alone, abs=1e-4)
    assert all(better > worse for better, worse in zip(alone[::2], alone[1::2], strict=True))
    theirs = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    theirs = PeftModel.from_pretrained(theirs, folder).eval()
    theirs.config.pad_token_id = None
    found = [float(theirs(input_ids=torch.tensor([row])).logits) for row in rows]
    assert found == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("changes", [{}, {"margin_scale": 0.5}])
def test_less_memory_changes_the_cut_and_not_the_learning(tmp_path: Path, base: Path, changes: dict[str, Any]) -> None:
    judged = [pair(number, chosen_score=number / 10, rejected_score=-1.0) for number in range(12)]
    data = put_lines(tmp_path, preferences=judged)
    whole = judge(tmp_path / "1", base, data, **changes)
    cut = judge(tmp_path / "2", base, data, memory_failures=2, **changes)
    assert [point["loss"] for point in curve(cut)] == pytest.approx([point["loss"] for point in curve(whole)], rel=1e-3)


def test_a_run_that_is_stopped_makes_the_same_adapter(tmp_path: Path, base: Path, pairs: ArtifactRef) -> None:
    options: dict[str, Any] = {"lora": {"dropout": 0.1}}
    whole = judge(tmp_path / "whole", base, pairs, **options)
    context = context_of(tmp_path, settings(base, **options), {"preferences": pairs}, step="judge")
    stop_after(context, 3)
    with pytest.raises(Stopping):
        train(context)
    resumed = judge(tmp_path, base, pairs, **options)
    assert curve(resumed) == curve(whole)
    assert resumed.outputs["adapter"].sha256 == whole.outputs["adapter"].sha256


def test_it_begins_with_an_adapter_that_writes_and_goes_on_from_one_that_scores(
    tmp_path: Path, base: Path, dataset: ArtifactRef, pairs: ArtifactRef
) -> None:
    training = TrainingSettings(precision="fp32", max_length=96, optimiser=OptimiserSettings(steps=2, batch_size=4))
    sft = TrainSettings(base_model=str(base), training=training)
    writes = train(context_of(tmp_path, sft, {"dataset": dataset})).outputs["adapter"]
    scores = judge(tmp_path / "1", base, pairs, writes)
    again = judge(tmp_path / "2", base, pairs, scores.outputs["adapter"])
    assert curve(again)[0]["loss"] < 0.5 * curve(scores)[0]["loss"]
    with pytest.raises(UserFault) as raised:
        train(context_of(tmp_path, sft, {"dataset": dataset, "adapter": scores.outputs["adapter"]}, step="wrong"))
    assert raised.value.reasons[0].message == "it is a reward model, which scores answers and writes none"


def test_pairs_that_are_too_long_or_equal_are_left_out_and_counted(tmp_path: Path, base: Path) -> None:
    long, equal = {**pair(1, chosen="so " * 60), "id": "long"}, {**pair(2, chosen="No idea."), "id": "equal"}
    result = judge(tmp_path, base, put_lines(tmp_path, preferences=[pair(0), long, equal, pair(3)]))
    names = ("examples", "examples_too_long", "examples_equal")
    assert [result.metrics[name] for name in names] == [2, 1, 1]
    assert result.facts["rows_left_out"].count("reward.max_length") == 2


def test_a_margin_needs_scores_of_a_judge(tmp_path: Path, base: Path, pairs: ArtifactRef) -> None:
    with pytest.raises(UserFault) as raised:
        judge(tmp_path, base, pairs, margin_scale=1.0)
    assert raised.value.reasons[0].field == "reward.margin_scale"


def test_prepare_keeps_the_pairs_of_every_split_and_checks_that_the_base_model_can_score(
    tmp_path: Path, base: Path
) -> None:
    from services.trainer.steps.prepare import prepare

    data = tmp_path / "data"
    data.mkdir()
    line = json.dumps({"prompt": "Where?", "chosen": "Sorry.", "rejected": "No."}) + "\n"
    for split in ("train", "test"):
        (data / f"{split}.jsonl").write_text(line)

    def prepared(folder: Path, **reward: Any) -> StepResult:
        given = PrepareSettings(
            base_model=str(folder), dataset=DatasetSettings(reference=str(data)), learns="pairs",
            reward=RewardModelSettings.model_validate(reward),
        )  # fmt: skip
        return prepare(context_of(tmp_path, given))

    result = prepared(base)
    assert len(lines_of(result.outputs["preferences"], "preferences-test.jsonl")) == 1
    assert [result.metrics[name] for name in ("pairs", "pairs_test")] == [1, 1]
    with pytest.raises(UserFault) as unknown:
        prepared(base, lora={"targets": ["nothing"]})
    assert unknown.value.reasons[0].field == "reward.lora.targets"
    with pytest.raises(UserFault) as unfit:
        prepared(dressed(tmp_path / "codegen", random_model("CodeGen", n_embd=32, n_layer=2, n_head=4, rotary_dim=4)))
    assert "has no model of its architecture that scores" in unfit.value.reasons[0].message
