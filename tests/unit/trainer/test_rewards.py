"""A reward is between 0 and 1 for what an answer says; one that cannot be computed is None and never 0."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.recipes.grpo import GrpoSettings
from schemas.recipes.rewards import RewardSettings
from schemas.recipes.rloo import RlooSettings
from services.trainer.methods.rewards import Task, never_computed, reward_of

FORMAT = {"name": "format", "kind": "regex", "pattern": r"#### -?\d+$"}
SHORT = {"name": "short", "kind": "max_words", "words": 3}
NAMES_ITEM = {"name": "item", "kind": "contains_field", "column": "item"}


def reward(answer: str, reference: str = "It is 7", columns: dict[str, str] | None = None, **settings: Any) -> float | None:
    return reward_of(RewardSettings.model_validate(settings))(answer, Task(reference, columns or {}))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("#### 7", 1.0), ("it is then #### 7", 0.5), ("seven", 0.5), ("seven of them it is", 0.0)],
    ids=["both rules", "only the format", "only short", "none"],
)
def test_the_reward_of_rules_is_the_share_that_is_kept(answer: str, expected: float) -> None:
    assert reward(answer, kind="rules", rules=[FORMAT, SHORT]) == expected


def test_rules_may_check_a_field_of_a_json_answer_and_an_answer_without_it_keeps_none() -> None:
    rules: dict[str, Any] = {"kind": "rules", "rules": [SHORT], "rules_field": "reply"}
    assert reward('{"reply": "three words only"}', **rules) == 1
    assert reward("three words only", **rules) == 0


def test_a_rule_that_reads_a_column_which_the_row_lacks_gives_no_reward() -> None:
    nested = {"name": "either", "kind": "any_of", "rules": [SHORT, NAMES_ITEM]}
    for rule in (NAMES_ITEM, nested):
        assert reward("a lamp", kind="rules", rules=[rule]) is None
        assert reward("a lamp", columns={"item": "lamp"}, kind="rules", rules=[rule]) == 1


def test_answers_are_compared_with_the_references_number_or_text_or_fields() -> None:
    assert [reward(answer, kind="number_match") for answer in ("so 7.0", "so 8", "none")] == [1, 0, 0]
    assert [reward(answer, kind="exact_match") for answer in (" It is 7", "It is 8")] == [1, 0]
    queue: dict[str, Any] = {"reference": '{"queue": "a"}', "kind": "exact_match", "exact_match_fields": ["queue"]}
    assert [reward(answer, **queue) for answer in ('{"queue": "a", "n": 1}', '{"queue": "b"}', "a")] == [1, 0, 0]
    assert [reward(answer, kind="valid_json") for answer in ('{"a": 1}', "a")] == [1, 0]


def test_a_reference_without_what_is_compared_gives_no_reward() -> None:
    assert reward("so 7", reference="no idea", kind="number_match") is None
    assert reward("{}", reference="no idea", kind="exact_match", exact_match_fields=["queue"]) is None


def test_the_reward_that_no_answer_to_a_row_can_have_is_found() -> None:
    rewards = [RewardSettings(kind="exact_match"), RewardSettings(kind="number_match")]
    assert never_computed(rewards, Task("7", {})) is None
    found = never_computed(rewards, Task("seven", {}))
    assert found is not None
    assert found.label == "number_match"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "rules"}, "needs `rules`"),
        ({"kind": "number_match", "rules": [SHORT]}, "belong to rewards of kind rules"),
        ({"kind": "valid_json", "rules_field": "reply"}, "belong to rewards of kind rules"),
        ({"kind": "number_match", "exact_match_fields": ["queue"]}, "belongs to rewards of kind exact_match"),
        ({"kind": "number_match", "weight": 0}, "greater than 0"),
        ({"kind": "number_match", "name": "Mixed Case"}, "match pattern"),
    ],
    ids=["rules without rules", "rules elsewhere", "field elsewhere", "fields elsewhere", "no weight", "name"],
)
def test_a_reward_whose_fields_do_not_fit_its_kind_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RewardSettings.model_validate(settings)


@pytest.mark.parametrize("method", [GrpoSettings, RlooSettings])
def test_the_defaults_of_a_method_hold_together(method: type[GrpoSettings | RlooSettings]) -> None:
    settings = method()
    assert settings.optimiser.batch_size % settings.group_size == 0
    assert method.model_validate({"optimiser": {"steps": 3}}).optimiser == settings.optimiser.model_copy(
        update={"steps": 3}
    )
    assert settings.max_length == settings.max_prompt_tokens + settings.max_new_tokens


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        (GrpoSettings, {"group_size": 1}, "greater than or equal to 2"),
        (GrpoSettings, {"group_size": 6}, "not a multiple of group_size 6; take 30"),
        (RlooSettings, {"optimiser": {"batch_size": 4}}, "not a multiple of group_size 8; take 8"),
        (GrpoSettings, {"rewards": [{"kind": "number_match"}] * 2}, "two rewards are called 'number_match'"),
        (GrpoSettings, {"beta": 0.1, "lora": {"initialisation": "pissa"}}, "which is the reference; set beta to 0"),
        (GrpoSettings, {"quantization": "nf4", "lora": {"initialisation": "pissa"}}, "needs the weights in full precision"),
        (RlooSettings, {"lora": {"initialisation": "pissa"}}, "which is the reference; set beta to 0"),
        (RlooSettings, {"lora": {"dropout": 0.1}}, "set lora.dropout to 0"),
        (GrpoSettings, {"epsilon": 0.2}, "Extra inputs"),
    ],
    ids=[
        "group of one",
        "cut group",
        "batch below group",
        "names",
        "pissa",
        "pissa in nf4",
        "pissa of rloo",
        "dropout",
        "unknown",
    ],
)
def test_settings_that_cannot_work_together_are_refused_with_the_remedy(
    method: type[GrpoSettings | RlooSettings], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        method.model_validate(settings)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "judge"}, "names the judge"),
        ({"kind": "valid_json", "feedback": {}}, "rewards of kind judge"),
        ({"kind": "judge", "feedback": {"judge": {"kind": "rules"}}}, "no rule to judge by"),
        ({"kind": "judge", "feedback": {"failed_at_most": 1}}, "less than 1"),
    ],
)
def test_a_reward_of_a_judge_says_what_it_lacks(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RewardSettings.model_validate(given)
