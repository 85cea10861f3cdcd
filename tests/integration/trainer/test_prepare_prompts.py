"""Before a training on sampled answers, `prepare` checks prompts, and that every reward can be computed for every row."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.jobs import StepResult
from schemas.reasons import Reason
from schemas.steps import PrepareSettings
from services.chassis.executor.child import UserFault
from services.trainer.steps.prepare import prepare
from tests.trainer import context_of, lines_of

LIMITS = {"max_prompt_tokens": 60, "max_new_tokens": 20}
NUMBER = {"kind": "number_match"}


def run(home: Path, base: Path, rows: list[dict[str, str]], max_length: int = 80, **settings: Any) -> StepResult:
    data = home / "data"
    data.mkdir(parents=True)
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = {"reference": str(data), "split": {"test": None}, **settings.pop("dataset", {})}
    return prepare(
        context_of(
            home,
            PrepareSettings.model_validate(
                {
                    "base_model": str(base), "dataset": dataset, "max_length": max_length, "assistant_turns": "last",
                    **{method: given if method == "training" else {**LIMITS, **given} for method, given in settings.items()},
                }
            ),
        )
    )  # fmt: skip


def reason(*arguments: Any, **settings: Any) -> Reason:
    with pytest.raises(UserFault) as raised:
        run(*arguments, **settings)
    return raised.value.reasons[0]


def sum_of(number: int, prompt: str = "", completion: str = "") -> dict[str, str]:
    return {"prompt": prompt or f"{number} + 1?", "completion": completion or f"It is {number + 1}."}


def test_prompts_that_are_too_long_are_counted_and_said_and_references_may_be_long(tmp_path: Path, base: Path) -> None:
    rows = [sum_of(1, prompt="Why? " * 20), sum_of(2), sum_of(3, completion="It is, " * 30 + "4.")]
    result = run(tmp_path, base, rows, grpo={"rewards": [NUMBER]})
    assert [result.metrics[name] for name in ("rows_train", "prompts_too_long", "rows_cut", "rows_bad")] == [3, 1, 0, 0]
    assert "left out of grpo: the prompt is longer than 60 tokens" in result.facts["dataset_notes"]


def test_a_data_set_whose_prompts_are_all_too_long_is_refused(tmp_path: Path, base: Path) -> None:
    found = reason(tmp_path, base, [sum_of(1, prompt="Why? " * 20)], rloo={"rewards": [NUMBER]})
    assert (found.field, found.value) == ("rloo.max_prompt_tokens", "60")


@pytest.mark.parametrize(
    "reward",
    [
        NUMBER,
        {"kind": "exact_match", "exact_match_fields": ["queue"]},
        {"kind": "rules", "rules": [{"name": "item", "kind": "contains_field", "column": "item"}]},
    ],
    ids=["number", "field", "column"],
)
def test_a_row_that_lacks_what_a_reward_reads_is_bad(tmp_path: Path, base: Path, reward: dict[str, Any]) -> None:
    rows = [sum_of(1, completion="None."), sum_of(2, completion="None at all.")]
    found = reason(tmp_path, base, rows, grpo={"rewards": [reward]})
    assert (found.field, found.value) == ("grpo.rewards", "train.jsonl line 1, train.jsonl line 2")
    assert reward["kind"] in found.message


def test_one_such_row_of_many_is_left_out_and_counted(tmp_path: Path, base: Path) -> None:
    result = run(tmp_path, base, [*map(sum_of, range(11)), sum_of(1, completion="None.")], grpo={"rewards": [NUMBER]})
    assert [result.metrics[name] for name in ("rows_train", "rows_bad", "rows_bad_rewards")] == [11, 1, 1]


def test_plain_texts_have_no_prompts(tmp_path: Path, base: Path) -> None:
    found = reason(tmp_path, base, [{"text": "Once."}], grpo={"rewards": [{"kind": "valid_json"}]})
    assert found.field == "dataset.layout"


def test_prompt_and_answer_beyond_what_the_model_reads_are_refused(tmp_path: Path, base: Path) -> None:
    found = reason(tmp_path, base, [sum_of(1)], grpo={"rewards": [NUMBER], "max_new_tokens": 1000})
    assert (found.field, found.value) == ("grpo.max_prompt_tokens", "1060")
    assert "grpo.max_new_tokens" in found.remedy


def test_rows_that_are_learnt_too_are_cut_as_their_own_training_says(tmp_path: Path, base: Path) -> None:
    rows = [sum_of(2), sum_of(3, completion="It is, " * 30 + "4.")]
    result = run(tmp_path, base, rows, grpo={"rewards": [NUMBER]}, training={})
    assert result.metrics["rows_cut"] == 1


PROMPTS = [{"prompt": f"{number} + 1?", "solution": str(number + 1)} for number in range(4)]


def test_rows_that_hold_only_prompts_are_taken_and_what_answers_are_compared_with_is_kept(
    tmp_path: Path, base: Path
) -> None:
    result = run(tmp_path, base, PROMPTS, grpo={"rewards": [{"kind": "exact_match"}]})
    assert [result.metrics[name] for name in ("rows_train", "rows_bad", "supervised_tokens_train")] == [4, 0, 8]
    lines = lines_of(result.outputs["dataset"], "train.jsonl")
    assert [line["completion"] for line in lines] == ["1", "2", "3", "4"]


def test_prompts_alone_are_rewarded_by_rules_and_have_no_reference_to_be_compared_with(tmp_path: Path, base: Path) -> None:
    rows = [{"prompt": "Why? " * 20}, *({"prompt": row["prompt"]} for row in PROMPTS)]
    rules = {"kind": "rules", "rules": [{"name": "short", "kind": "max_words", "words": 3}]}
    result = run(tmp_path / "rules", base, rows, grpo={"rewards": [rules]})
    assert [result.metrics[name] for name in ("rows_train", "prompts_too_long", "answers_learnt")] == [5, 1, 0]
    assert result.facts["dataset_layout"] == "prompts without answers, in the columns prompt"
    found = reason(tmp_path / "exact", base, rows, grpo={"rewards": [{"kind": "exact_match"}]})
    assert "lacks the reference" in found.message
    assert "dataset.columns.completion" in found.remedy


def test_prompts_alone_are_refused_where_their_answers_are_learnt_too(tmp_path: Path, base: Path) -> None:
    found = reason(tmp_path, base, PROMPTS, grpo={"rewards": [NUMBER]}, training={})
    assert (found.field, found.message) == (
        "dataset.columns.completion", "the rows have prompts and no answers, and the pipeline learns from answers",
    )  # fmt: skip
