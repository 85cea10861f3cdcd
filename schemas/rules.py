"""Defines checkable rules, which requests contain as data, for the evaluation metrics and the `rules` judge."""

import re
from collections.abc import Iterable, Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Strict, WholeOrNone

RuleKind = Literal[
    "contains_any", "contains_none", "min_words", "max_words", "regex", "not_regex", "contains_field", "any_of"
]


class Rule(Strict):
    """One checkable statement about a text. Matching ignores case; `values` match on word boundaries."""

    name: str = Field(min_length=1, max_length=128, description="Name of the rule in reports.")
    kind: RuleKind = Field(description="Kind of the check; it decides which of the other fields is used.")
    values: tuple[str, ...] = Field(default=(), description="Phrases, for contains_any and contains_none.")
    pattern: str | None = Field(default=None, max_length=1000, description="Python regex, for regex and not_regex.")
    words: WholeOrNone = Field(default=None, ge=0, description="Number of words, for min_words and max_words.")
    column: str | None = Field(
        default=None, description="Column of the data set whose value must occur in the text, for contains_field."
    )
    rules: tuple["Rule", ...] = Field(default=(), description="Alternatives of which one must pass, for any_of.")

    @model_validator(mode="after")
    def _has_what_its_kind_reads(self) -> Self:
        needs = {
            "contains_any": "values", "contains_none": "values", "min_words": "words", "max_words": "words",
            "regex": "pattern", "not_regex": "pattern", "contains_field": "column", "any_of": "rules",
        }[self.kind]  # fmt: skip
        if getattr(self, needs) in (None, ()):
            raise ValueError(f"a rule of kind {self.kind} needs `{needs}`")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"pattern is not a valid regular expression: {error}") from error
        return self


def _contains(text: str, phrase: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE) is not None


def passes(rule: Rule, text: str, row: Mapping[str, str]) -> bool:
    """Return whether `text` keeps `rule`; `row` has the columns of the data set's row that the text answers."""
    match rule.kind:
        case "contains_any":
            return any(_contains(text, value) for value in rule.values)
        case "contains_none":
            return not any(_contains(text, value) for value in rule.values)
        case "min_words":
            return len(text.split()) >= (rule.words or 0)
        case "max_words":
            return len(text.split()) <= (rule.words or 0)
        case "regex":
            return re.search(rule.pattern or "", text, re.IGNORECASE) is not None
        case "not_regex":
            return re.search(rule.pattern or "", text, re.IGNORECASE) is None
        case "contains_field":
            value = row.get(rule.column or "", "")
            return bool(value) and _contains(text, value)
        case "any_of":
            return any(passes(alternative, text, row) for alternative in rule.rules)


def failures(rules: Iterable[Rule], text: str, row: Mapping[str, str]) -> list[str]:
    """Return the names of the rules that `text` breaks, in the order of the rules."""
    return [rule.name for rule in rules if not passes(rule, text, row)]
