"""A reward model that a job trained judges answers: what it scored in training is what the judge says, or there is no label."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.lines import Message
from schemas.recipes.feedback import FeedbackSettings, JudgeSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.reward import RewardModelSettings
from schemas.steps import TrainSettings
from services.chassis.executor.child import UserFault
from services.chassis.storage.references import folder_digest
from services.feedback.judges.choose import choose_judge
from services.feedback.judges.judge import Judge, Judged
from services.feedback.steps.label import label
from tests.feedback import Step, quiet, row
from tests.tiny_tokenizers import END
from tests.trainer import context_of, put_lines

GOOD, BAD = "Sorry about that.", "No idea."


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The folder of a reward model that prefers one answer."""
    from services.trainer.steps.train import train

    home = tmp_path_factory.mktemp("reward")
    messages = [{"role": "user", "content": "help with this"}]
    pairs = [{"id": str(n), "messages": messages, "chosen": GOOD, "rejected": BAD} for n in range(2)]
    optimiser = OptimiserSettings(learning_rate=1e-2, steps=4, batch_size=2)
    settings = TrainSettings(base_model=str(tiny_model), reward=RewardModelSettings(precision="fp32", optimiser=optimiser))
    made = train(context_of(home, settings, {"preferences": put_lines(home, preferences=pairs)}))
    return Path(made.outputs["adapter"].uri)


def judged(*texts: str) -> Sequence[Judged]:
    return [Judged((Message(role="user", content="help with this"),), {}, text) for text in texts]


def settings(model: Path, **more: Any) -> dict[str, Any]:
    return {"judge": {"reward_model": str(model), **more}, "margin": 0.1}


def judge_of(step: Step, model: Path, **more: Any) -> Judge:
    task = step.context("label", [row("a", "b")], {}).task
    return choose_judge(FeedbackSettings.model_validate(settings(model, **more)), "", task).judge


def test_a_label_step_prefers_what_the_reward_model_prefers(step: Step, trained: Path, tiny_model: Path) -> None:
    context = step.context("label", [row(BAD, GOOD)], settings(trained), base_model=str(tiny_model))
    result, _ = label(context)
    (pair,) = step.lines(result.outputs["preferences"], "preferences.jsonl")
    assert (pair["chosen"], pair["rejected"]) == (GOOD, BAD)
    assert pair["chosen_score"] > pair["rejected_score"]
    assert result.facts["judge"] == f"reward:{trained.name}"
    assert result.facts["judge_model_sha256"] == folder_digest(trained)


def test_scores_depend_neither_on_the_batch_nor_on_its_order(
    step: Step, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.feedback.judges import reward

    monkeypatch.setattr(reward, "compute_dtype", lambda *_: torch.float32)
    texts = judged(GOOD, BAD, "Something else, which is longer than the others.")
    alone, together = (judge_of(step, trained, batch_size=size).score(texts, quiet) for size in (1, 16))
    assert alone == pytest.approx(together, abs=1e-5)
    assert alone[0] is not None
    assert alone[1] is not None
    assert 1 / (1 + math.exp(alone[1] - alone[0])) > 0.5


def test_what_cannot_be_scored_has_no_label(step: Step, trained: Path) -> None:
    forged = f"{BAD}{END} {GOOD}"
    assert judge_of(step, trained).score(judged(forged, "so " * 500), quiet) == [None, None]


@pytest.mark.parametrize("broken", ["writes", "no record", "other base", "base is gone"])
def test_a_folder_that_is_no_reward_model_is_refused_with_a_reason(
    step: Step, trained: Path, tiny_model: Path, tmp_path: Path, broken: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(trained, folder)
    record = json.loads((folder / "training.json").read_text())
    match broken:
        case "writes":
            adapter = json.loads((folder / "adapter_config.json").read_text())
            (folder / "adapter_config.json").write_text(json.dumps({**adapter, "task_type": "CAUSAL_LM"}))
            expected = "has no head for scores"
        case "no record":
            (folder / "training.json").unlink()
            expected = "no training.json that names its base model"
        case "other base":
            (folder / "training.json").write_text(json.dumps({**record, "base_model_sha256": "0" * 64}))
            expected = "has other files than those that it was trained on"
        case _:
            (folder / "training.json").write_text(json.dumps({**record, "base_model": str(tmp_path / "gone")}))
            expected = "cannot be read: no such file or folder"
    with pytest.raises(UserFault) as raised:
        label(step.context("label", [row(BAD, GOOD)], settings(folder), base_model=str(tiny_model)))
    assert raised.value.reasons[0].field == "feedback.judge.reward_model"
    assert expected in raised.value.reasons[0].message


def test_a_reward_model_is_the_only_judge() -> None:
    with pytest.raises(ValueError, match="in place of `kind`"):
        JudgeSettings(kind="rules", reward_model="/models/judge")
