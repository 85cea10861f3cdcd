"""A reward model that a job trained judges answers: what it scored in training is what the judge says, or there is no label."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.jobs import StepResult
from schemas.lines import Message
from schemas.recipes.feedback import FeedbackSettings, JudgeSettings
from services.chassis.executor.child import UserFault
from services.chassis.storage.artifacts.errors import MANIFEST
from services.chassis.storage.artifacts.store import ArtifactStore
from services.chassis.storage.references import folder_digest
from services.feedback.judges.choose import choose_judge
from services.feedback.judges.judge import Judge, TextToJudge
from services.feedback.steps.label import label
from tests.feedback import BAD, GOOD, Step, quiet, row, trained_judge
from tests.tiny_tokenizers import END


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The folder of a reward model that prefers one answer."""
    return Path(trained_judge(tmp_path_factory.mktemp("reward"), tiny_model).uri)


def judged(*texts: str) -> Sequence[TextToJudge]:
    return [TextToJudge((Message(role="user", content="help with this"),), {}, text) for text in texts]


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


REFERENCE = "judge@candidate"


def registered(step: Step, trained: Path, base: Path | None, elsewhere: Path | None = None) -> dict[str, StepResult]:
    """Return what the registry said of the reward model, whose `base` is an artifact, too."""
    folder, store = step.home / "registered", ArtifactStore(str(elsewhere)) if elsewhere else step.store
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns(MANIFEST))
    outputs = {}
    if base is not None:
        outputs["model"] = step.store.put(base)
        record = json.loads((folder / "training.json").read_text())
        changed = {**record, "base_model": "router@1.0.0", "base_model_sha256": outputs["model"].sha256}
        (folder / "training.json").write_text(json.dumps(changed))
    outputs["adapter"] = store.put(folder)
    facts = {"judge_reference": REFERENCE, "judge_version": "judge@1.2.0"}
    return {"resolve-judge": StepResult(outputs=outputs, facts=facts)}


@pytest.mark.parametrize("is_registered", [False, True], ids=["a folder", "a registered model"])
def test_a_registered_reward_model_judges_on_its_base_model(
    step: Step, trained: Path, tiny_model: Path, is_registered: bool
) -> None:
    found = registered(step, trained, tiny_model if is_registered else None)
    context = step.context("label", [row(BAD, GOOD)], {"judge": {"reward_model": REFERENCE}, "margin": 0.1}, results=found)
    result, _ = label(context)
    (pair,) = step.lines(result.outputs["preferences"], "preferences.jsonl")
    assert (pair["chosen"], pair["rejected"]) == (GOOD, BAD)
    adapter = found["resolve-judge"].outputs["adapter"]
    assert result.facts == {"judge": "reward:judge@1.2.0", "judge_model_sha256": adapter.sha256}


@pytest.mark.parametrize("wrong", ["outside", "base"])
def test_a_registered_reward_model_is_taken_from_the_store_and_on_its_own_base_model_only(
    step: Step, trained: Path, tiny_model: Path, tmp_path: Path, wrong: str
) -> None:
    if wrong == "outside":
        found, words = registered(step, trained, None, tmp_path / "elsewhere"), "is not in the store"
    else:
        found, words = registered(step, trained, tiny_model), "other files than those that it was trained on"
        outputs = found["resolve-judge"].outputs
        outputs["model"] = step.artifact("other", [row(GOOD)])
    context = step.context("label", [row(BAD, GOOD)], {"judge": {"reward_model": REFERENCE}}, results=found)
    with pytest.raises(UserFault, match=words) as raised:
        label(context)
    assert raised.value.reasons[0].field == "feedback.judge.reward_model"


def test_a_reward_model_is_the_only_judge() -> None:
    with pytest.raises(ValueError, match="in place of `kind`"):
        JudgeSettings(kind="rules", reward_model="/models/judge")
