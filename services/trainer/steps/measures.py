"""Checks answers, as pure functions of texts: valid JSON, exact match, equal number, rules kept; and computes pass@k."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from schemas.answers import field_text, json_object
from schemas.lines import Prediction
from schemas.rules import Rule, failures
from services.trainer.steps.numbers import final_number


class ExpectedAnswer(Protocol):
    """What an answer is compared with."""

    @property
    def reference(self) -> str:
        """The row's own answer."""

    @property
    def columns(self) -> Mapping[str, str]:
        """All columns of the source as text."""


Check = Callable[[str, ExpectedAnswer], bool | None]
"""Whether an answer to a row passes; None if the row does not count, whatever the answer."""


def valid_json(answer: str, row: ExpectedAnswer) -> bool:
    """Whether the answer is one JSON object and nothing else."""
    return json_object(answer) is not None


def exact_match(fields: Sequence[str]) -> Check:
    """Whether the answer equals the reference in all `fields`, or as a whole if no field is named.

    A row without a reference, or whose reference lacks one of the fields, does not count.
    """

    def check(answer: str, row: ExpectedAnswer) -> bool | None:
        if not fields:
            return answer.strip() == row.reference.strip() if row.reference.strip() else None
        known = json_object(row.reference)
        if known is None or any(name not in known for name in fields):
            return None
        found = json_object(answer)
        return found is not None and all(name in found and found[name] == known[name] for name in fields)

    return check


def number_match(answer: str, row: ExpectedAnswer) -> bool | None:
    """Whether the answer's final number equals the reference's. A row whose reference has no number does not count."""
    known = final_number(row.reference)
    return None if known is None else final_number(answer) == known


def keeps_rules(rules: Sequence[Rule], field: str | None) -> Check:
    """Whether the answer's `field` keeps all rules; an answer without a readable field does not pass."""

    def check(answer: str, row: ExpectedAnswer) -> bool:
        text = field_text(answer, field)
        return text is not None and not failures(rules, text, row.columns)

    return check


def greedy_shares(check: Check, rows: Sequence[Prediction]) -> list[float]:
    """Return 1 or 0 for each row that counts: whether its greedy answer passes."""
    return [float(passed) for row in rows if (passed := check(row.greedy, row)) is not None]


def sampled_shares(check: Check, rows: Sequence[Prediction]) -> list[float]:
    """Return for each row that counts the share of its sampled answers that pass."""
    return [sum(passed) / len(passed) for passed in _sampled(check, rows)]


def pass_at(k: int, check: Check, rows: Sequence[Prediction]) -> list[float]:
    """Return for each row that counts the probability that one of `k` of its sampled answers passes.

    The unbiased estimator of Chen et al. 2021 (Evaluating Large Language Models Trained on Code), section 2.1:
    1 - C(n - c, k) / C(n, k) for c of n answers that pass.
    """
    return [1 - math.comb(len(passed) - sum(passed), k) / math.comb(len(passed), k) for passed in _sampled(check, rows)]


def _sampled(check: Check, rows: Sequence[Prediction]) -> list[list[bool]]:
    verdicts = ([check(answer, row) for answer in row.samples] for row in rows)
    return [counted for of_row in verdicts if (counted := [passed for passed in of_row if passed is not None])]
