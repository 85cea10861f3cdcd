"""Defines the rewards of answers, which requests contain as data, for training methods that learn from the model's own answers."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Real, Strict
from schemas.rules import Rule

RewardKind = Literal["rules", "number_match", "exact_match", "valid_json"]
RewardName = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9_]+$")]


class RewardSettings(Strict):
    """One reward of an answer, between 0 and 1. An answer's reward is the weighted sum of all."""

    kind: RewardKind = Field(
        description="rules: the share of `rules` that the answer keeps; number_match: 1 if the number that the answer ends with "
        "equals that of the row's reference, as in `evaluation`; exact_match: 1 if the answer equals the reference; valid_json: 1 "
        "if the answer is one JSON object and nothing else."
    )
    name: RewardName | None = Field(
        default=None, description="Name in the metrics, `reward_<name>`; null: the kind. Names are unique."
    )
    weight: Real = Field(default=1.0, gt=0, le=100, description="Factor of the reward in the sum.")
    rules: tuple[Rule, ...] = Field(default=(), max_length=100, description="Rules of the kind `rules`.")
    rules_field: str | None = Field(
        default=None, description="rules: field of the JSON answer that the rules check; null: the whole text."
    )
    exact_match_fields: tuple[str, ...] = Field(
        default=(),
        description="exact_match: fields of the JSON answer that must equal the reference; empty: the whole text.",
    )

    @property
    def label(self) -> str:
        """The name in the metrics."""
        return self.name or self.kind

    @model_validator(mode="after")
    def _fields_belong_to_the_kind(self) -> Self:
        if self.kind == "rules" and not self.rules:
            raise ValueError("a reward of kind rules needs `rules`")
        if self.kind != "rules" and (self.rules or self.rules_field is not None):
            raise ValueError(f"`rules` and `rules_field` belong to rewards of kind rules; leave them out for {self.kind}")
        if self.kind != "exact_match" and self.exact_match_fields:
            raise ValueError("`exact_match_fields` belongs to rewards of kind exact_match; leave it out")
        return self


def refuse_equal_names(rewards: Sequence[RewardSettings]) -> None:
    """Raise ValueError if two rewards have one name in the metrics."""
    labels = [reward.label for reward in rewards]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise ValueError(f"two rewards are called {twice!r} in the metrics; give one of them another `name`")
