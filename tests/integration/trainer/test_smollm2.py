"""SmolLM2-135M, the demo's real base model, learns by each method in the child that a worker starts, and what it makes answers.

All methods share one data set of pairs: its preferred answers are what `sft` learns, its prompts are what `grpo` answers.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.lines import Message
from schemas.steps import PrepareSettings, TrainSettings
from services.chassis.executor.runner import Completed
from services.chassis.storage.cache import CacheSettings
from services.demo.base_model import install
from services.language_models.chat_format.chat import Chat
from services.language_models.scoring import load_reward_model, padding_beside, scored_tokens, scores_of
from services.trainer.answer import answer
from tests.split import Split, trained
from tests.trainer import lines_of

STEPS = 3
LETTERS = [{"name": letter, "kind": "regex", "pattern": letter} for letter in ascii_lowercase]
"""An answer is rewarded for the share of the alphabet in it, so that no two answers to a prompt are likely to earn the same."""
SHORT = {"max_length": 96, "optimiser": {"steps": STEPS, "batch_size": 4}}
METHODS: dict[str, dict[str, Any]] = {
    "training": SHORT,
    "preference": SHORT,
    "kto": SHORT,
    "reward": SHORT,
    "grpo": {
        "max_new_tokens": 12, "group_size": 2, "rewards": [{"kind": "rules", "rules": LETTERS}],
        "optimiser": SHORT["optimiser"],
    },
}  # fmt: skip
"""The settings of each method, by the name of its section in a request."""


@pytest.fixture(scope="module")
def smollm2() -> Path:
    """The base model's folder in the cache, where `make base-model` has put it."""
    return install(CacheSettings().cache, print)


@pytest.fixture(scope="module")
def prepared(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> StepResult:
    """What the step `prepare` has made of a file of pairs, for all methods."""
    home = tmp_path_factory.mktemp("prepared")
    pairs = [
        {"prompt": f"Where is parcel {number}?", "chosen": "Sorry! I look it up.", "rejected": "No idea."}
        for number in range(12)
    ]
    (home / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    dataset = {"reference": str(home / "pairs.jsonl"), "split": {"test": None, "validation_fraction": 0.0}}
    asked = {"base_model": str(smollm2), "dataset": dataset, "learns": "pairs", "max_length": 96, **METHODS}
    outcome = Split(home / "home", PrepareSettings.model_validate(asked), {}, 1).run()
    assert isinstance(outcome, Completed), outcome
    return outcome.result


@pytest.fixture(scope="module")
def adapters(smollm2: Path, prepared: StepResult, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, ArtifactRef]:
    """What each method has made, by its section."""
    asked = {}
    for section, settings in METHODS.items():
        of = "dataset" if section in ("training", "grpo") else "preferences"
        step = TrainSettings.model_validate({"base_model": str(smollm2), section: settings})
        asked[section] = (step, {of: prepared.outputs[of]})
    return trained(tmp_path_factory.mktemp("trained"), asked, 1)


@pytest.mark.parametrize("section", METHODS)
def test_a_real_model_learns_and_serves(smollm2: Path, adapters: Mapping[str, ArtifactRef], section: str) -> None:
    losses = [point["loss"] for point in lines_of(adapters[section], "curve.jsonl")]
    assert len(losses) == STEPS
    assert all(map(math.isfinite, losses))
    made = Path(adapters[section].uri)
    updates = {name: weight for name, weight in load_file(made / "adapter_model.safetensors").items() if "lora_B" in name}
    assert updates
    assert all(weight.isfinite().all() and weight.any() for weight in updates.values()), "they begin as zeros"
    asked = [Message(role="user", content="Where is my parcel?")]
    if section == "reward":
        rows = scored_tokens(Chat(made).tokenizer, [(asked, "Sorry! I look it up.", ())])
        [score] = scores_of(
            load_reward_model(smollm2, made, torch.float32, torch.device("cpu")), rows, padding_beside(rows)
        )
        assert math.isfinite(score)
    else:
        assert answer(smollm2, made, asked, 12).strip()


def test_a_log_has_nothing_that_libraries_tell_their_own_developers(
    adapters: Mapping[str, ArtifactRef], tmp_path_factory: pytest.TempPathFactory
) -> None:
    logs = {log: log.read_text() for log in tmp_path_factory.getbasetemp().rglob("logs/trainer/**/*.log")}
    assert {log.parent.name for log in logs} >= {"prepare", "train"}
    for words in ("is_gradient_checkpointing", "were not sharded"):
        assert not [log for log, text in logs.items() if words in text]
