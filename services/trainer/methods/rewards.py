"""Computes the rewards of answers as pure functions of texts, with the same checks as an evaluation.

A reward that cannot be computed is None, never 0: an answer must not be learnt for a fault that is not its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from schemas.answers import field_text
from schemas.lines import Message, Row
from schemas.recipes.rewards import RewardSettings
from schemas.rules import Rule, failures
from services.language_models.chat_format.written import visible
from services.trainer.steps.measures import Check, ExpectedAnswer, exact_match, number_match, valid_json

Reward = Callable[[str, ExpectedAnswer], float | None]
"""The reward of an answer to a row; None if it cannot be computed."""


@dataclass(frozen=True)
class Task:
    """What the rewards of a row's answers are computed from."""

    reference: str
    columns: Mapping[str, str]
    messages: tuple[Message, ...] = ()
    """The prompt, which judges read."""


def task_of(row: Row) -> Task:
    """Return the task of a row; its reference is compared without the thought before it."""
    return Task(visible(row.completion), row.columns, row.messages)


def reward_of(settings: RewardSettings) -> Reward:
    """Return the function of a reward that is none of a judge."""
    match settings.kind:
        case "rules":
            return _share_kept(settings.rules, settings.rules_field)
        case "number_match":
            return _passed(number_match)
        case "exact_match":
            return _passed(exact_match(settings.exact_match_fields))
        case "valid_json":
            return _passed(valid_json)
        case "judge":
            raise TypeError("the reward of a judge is no function of one answer")


def never_computed(rewards: Sequence[RewardSettings], task: Task) -> RewardSettings | None:
    """Return the first reward that no answer to this row can have, because the row lacks what it reads; None if there is none."""
    computed = (settings for settings in rewards if settings.kind != "judge")
    return next((settings for settings in computed if reward_of(settings)("", task) is None), None)


def _passed(check: Check) -> Reward:
    def reward(answer: str, task: ExpectedAnswer) -> float | None:
        passed = check(answer, task)
        return None if passed is None else float(passed)

    return reward


def _share_kept(rules: Sequence[Rule], field: str | None) -> Reward:
    """The share of rules that the answer's `field` keeps; 0 for an answer without that field, None for a row without a column
    that a rule reads."""
    columns = frozenset(_columns(rules))

    def reward(answer: str, task: ExpectedAnswer) -> float | None:
        if not columns <= task.columns.keys():
            return None
        text = field_text(answer, field)
        return 0.0 if text is None else 1 - len(failures(rules, text, task.columns)) / len(rules)

    return reward


def _columns(rules: Sequence[Rule]) -> list[str]:
    return [name for rule in rules for name in (*([rule.column] if rule.column else ()), *_columns(rule.rules))]
