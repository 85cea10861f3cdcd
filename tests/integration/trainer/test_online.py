"""A model learns from rewards of the answers that it samples: rewarded ones become likelier, and interruptions change nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.steps import TrainSettings
from services.chassis.executor.child import Context, Stopping, UserFault
from services.trainer.methods import sampling
from services.trainer.steps.answering import answers_of
from services.trainer.steps.train import train
from tests.base_models import dressed, random_model
from tests.trainer import context_of, lines_of, put_lines, row

GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
"""A model that reads absolute positions, without dropout."""
RUNS = (("alone", 4), ("together", 0))
"""Runs in which answers are learnt one by one, and all at once, where prompts are padded."""
LETTERS = {"kind": "rules", "rules": [{"name": "no e", "kind": "not_regex", "pattern": "[a-m]"}]}
"""A reward that a random model sometimes gets."""


def settings(base: Path, method: str = "grpo", **changes: Any) -> TrainSettings:
    optimiser = {
        "learning_rate": 1e-2,
        "steps": 4,
        "batch_size": 16,
        "schedule": "constant",
        **changes.pop("optimiser", {}),
    }
    online = {
        "precision": "fp32", "max_new_tokens": 6, "group_size": 4, "checkpoint_steps": 2, "rewards": [LETTERS],
        "optimiser": optimiser, **changes,
    }  # fmt: skip
    return TrainSettings.model_validate({"base_model": str(base), method: online})


@pytest.fixture
def data(tmp_path: Path) -> ArtifactRef:
    """A `dataset` artifact of prompts with numbers as references."""
    return put_lines(tmp_path, train=[row(number, f"What is {number}?", f"It is {number}.") for number in range(6)])


def learn(home: Path, base: Path, data: ArtifactRef, adapter: ArtifactRef | None = None, **more: Any) -> StepResult:
    failures = more.pop("memory_failures", 0)
    inputs = {"dataset": data} | ({"adapter": adapter} if adapter else {})
    return train(context_of(home, settings(base, **more), inputs, step="learn", memory_failures=failures))


def curve(result: StepResult) -> list[dict[str, float]]:
    return lines_of(result.outputs["adapter"], "curve.jsonl")


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_rewarded_answers_become_more_frequent(tmp_path: Path, base: Path, data: ArtifactRef, method: str) -> None:
    longer = {"steps": 12, "batch_size": 48, "learning_rate": 2e-2}
    result = learn(tmp_path, base, data, method=method, optimiser=longer, checkpoint_steps=12, beta=0.0)
    points = curve(result)
    rewards = [point["reward"] for point in points]
    assert sum(rewards[-4:]) / 4 > sum(rewards[:4]) / 4 + 0.1
    assert points[0]["reward_rules"] == points[0]["reward"]
    assert 0 <= points[0]["groups_without_deviation"] < 1
    assert 0 < points[0]["answer_tokens"] <= 6
    assert points[0]["rewards_failed"] == 0
    assert result.metrics["examples"] == 6


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("grpo", {"loss": "dapo", "beta": 0.1}),
        ("grpo", {"loss": "dr_grpo", "scale_rewards": "none", "learn_cut_answers": False}),
        ("rloo", {"normalise_advantages": True, "temperature": 0.7, "top_p": 0.9}),
    ],
    ids=["dapo", "dr_grpo", "rloo"],
)
def test_less_memory_changes_the_cut_and_not_the_learning(
    tmp_path: Path, base: Path, data: ArtifactRef, method: str, more: dict[str, Any]
) -> None:
    more |= {"optimiser": {"steps": 2}}
    whole = learn(tmp_path / "1", base, data, method=method, **more)
    cut = learn(tmp_path / "2", base, data, method=method, memory_failures=3, **more)
    figures = ("loss", "reward", "gradient_norm")
    of_cut, of_whole = ([[point[name] for name in figures] for point in curve(result)] for result in (cut, whole))
    assert of_cut == [pytest.approx(point, rel=1e-3, abs=1e-6) for point in of_whole]


def test_answers_are_learnt_at_the_positions_at_which_they_were_sampled(tmp_path: Path) -> None:
    base = dressed(tmp_path / "gpt2", random_model("GPT2", **GPT2))
    rows = [row(number, f"{'What ' * number}is it?", "It.") for number in range(4)]
    data = put_lines(tmp_path, train=rows)
    more: dict[str, Any] = {"optimiser": {"steps": 1}, "lora": {"rank": 2}}
    alone, together = (learn(tmp_path / name, base, data, memory_failures=failures, **more) for name, failures in RUNS)
    assert curve(alone)[0]["gradient_norm"] == pytest.approx(curve(together)[0]["gradient_norm"], rel=1e-3)


@pytest.mark.parametrize("ended_by", ["stop", "crash"])
def test_a_run_that_ends_while_it_samples_goes_on_with_the_same_answers_and_the_same_reference(
    tmp_path: Path, base: Path, data: ArtifactRef, ended_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = learn(tmp_path / "first", base, data, optimiser={"steps": 2}).outputs["adapter"]
    whole = learn(tmp_path / "whole", base, data, first, beta=0.5)
    assert curve(whole)[0]["reference_distance"] == pytest.approx(0, abs=1e-6)
    assert curve(whole)[-1]["reference_distance"] > 0
    context = context_of(tmp_path, settings(base, beta=0.5), {"dataset": data, "adapter": first}, step="learn")
    with monkeypatch.context() as patched:
        patched.setattr(sampling, "answers_of", ending(context, ended_by, sampled=3))
        with pytest.raises(Stopping if ended_by == "stop" else MemoryError):
            train(context)
    saved = sorted(path.name for path in (tmp_path / "checkpoints").rglob("step-*"))
    assert saved[-1] == ("step-00000003" if ended_by == "stop" else "step-00000002")
    resumed = learn(tmp_path, base, data, first, beta=0.5)
    assert curve(resumed) == curve(whole)
    assert resumed.outputs["adapter"].sha256 == whole.outputs["adapter"].sha256


def ending(context: Context, ended_by: str, sampled: int) -> Callable[..., Any]:
    """Return what samples answers so often, and then is asked to end, or crashes."""
    calls = 0

    def sample(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > sampled:
            if ended_by == "crash":
                raise MemoryError
            context.stop()
        return answers_of(*arguments, **options)

    return sample


def test_a_run_in_which_all_answers_to_each_prompt_have_one_reward_is_refused(
    tmp_path: Path, base: Path, data: ArtifactRef
) -> None:
    with pytest.raises(UserFault) as raised:
        learn(tmp_path, base, data, rewards=[{"kind": "valid_json"}], optimiser={"steps": 2})
    (reason,) = raised.value.reasons
    assert reason.field == "grpo.rewards"
    assert "nothing was learnt in 2 steps" in reason.message


def test_prompts_that_are_too_long_or_cannot_be_rewarded_are_left_out_and_named(tmp_path: Path, base: Path) -> None:
    rows = [row(1, "What is 1?", "It is 1."), row(2, "What? " * 20, "It is 2."), row(3, "What is 3?", "No idea.")]
    data = put_lines(tmp_path, train=rows)
    more: dict[str, Any] = {
        "max_prompt_tokens": 60,
        "rewards": [{"kind": "number_match"}, LETTERS],
        "optimiser": {"steps": 1},
    }
    result = learn(tmp_path, base, data, **more)
    assert [result.metrics[name] for name in ("examples", "prompts_too_long", "prompts_unrewarded")] == [1, 1, 1]
    assert "row-2" in result.facts["rows_left_out"]
    assert "row-3" in result.facts["rows_left_out"]


def test_without_a_prompt_that_can_be_rewarded_the_training_is_refused(tmp_path: Path, base: Path) -> None:
    data = put_lines(tmp_path, train=[row(3, "What is 3?", "No idea.")])
    with pytest.raises(UserFault) as raised:
        learn(tmp_path, base, data, rewards=[{"kind": "number_match"}])
    assert raised.value.reasons[0].field == "grpo.rewards"


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_prompts_without_answers_are_learnt_from(tmp_path: Path, base: Path, method: str) -> None:
    prompts = put_lines(tmp_path, train=[row(number, f"What is {number}?", "") for number in range(4)])
    result = learn(tmp_path, base, prompts, method=method, optimiser={"steps": 2})
    assert result.metrics["examples"] == 4
    assert [point["rewards_failed"] for point in curve(result)] == [0, 0]
