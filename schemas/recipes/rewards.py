"""Defines the rewards of answers, which requests contain as data, for training methods that learn from the model's own answers."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Real, Strict
from schemas.recipes.feedback import ADD_RULES, NO_RULE, JudgeSettings, Rubric, lacks_rules
from schemas.rules import Rule

RewardKind = Literal["rules", "number_match", "exact_match", "valid_json", "judge"]
RewardName = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9_]+$")]


class RewardFeedback(Strict):
    """How a judge of the feedback service rewards answers while a model learns. An answer that it gives no score has no reward."""

    judge: JudgeSettings = JudgeSettings()
    rubric: Rubric = Rubric()
    judged_field: str | None = Field(
        default=None,
        description="Field of a JSON answer that is judged; null: the whole text. An answer without that text has no reward.",
    )
    timeout_seconds: Real = Field(
        default=120.0,
        gt=0,
        le=3600,
        description="Time-out of one request to the feedback service, which has at most 64 answers. It is sent again twice.",
    )
    failed_at_most: Real = Field(
        default=0.25,
        ge=0,
        lt=1,
        description="The largest share of the answers of an optimiser step that the judge may leave without a score; with more the "
        "step of the job fails as a fault of the infrastructure, and its next attempt goes on from the last checkpoint.",
    )

    @model_validator(mode="after")
    def _rules_judge_has_rules(self) -> Self:
        if lacks_rules(self.judge, self.rubric):
            raise ValueError(f"{NO_RULE}; {ADD_RULES}")
        return self


class RewardSettings(Strict):
    """One reward of an answer, between 0 and 1, or on the scale of its judge. An answer's reward is the weighted sum of all."""

    kind: RewardKind = Field(
        description="rules: the share of `rules` that the answer keeps; number_match: 1 if the number that the answer ends with "
        "equals that of the row's reference, as in `evaluation`; exact_match: 1 if the answer equals the reference; valid_json: 1 "
        "if the answer is one JSON object and nothing else; judge: the score of the judge in `feedback`, from 1 to 5 for a judge at "
        "an endpoint and for one that is asked by `question`."
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
    feedback: RewardFeedback | None = Field(
        default=None, description="judge: which judge rewards the answer, by which rubric, and what happens if it fails."
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
        if (self.kind == "judge") != (self.feedback is not None):
            raise ValueError(
                "`feedback` belongs to rewards of kind judge, and to them only: it names the judge and the rubric"
            )
        return self


def refuse_equal_names(rewards: Sequence[RewardSettings]) -> None:
    """Raise ValueError if two rewards have one name in the metrics."""
    labels = [reward.label for reward in rewards]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise ValueError(f"two rewards are called {twice!r} in the metrics; give one of them another `name`")
