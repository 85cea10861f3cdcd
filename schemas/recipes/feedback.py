"""Defines the settings of feedback: the judge, its criteria, and how candidates become pairs."""

import hashlib
from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Real, Strict, Whole
from schemas.rules import Rule

DEFAULT_PRINCIPLE = "You write replies that are kind, specific and honest."
DEFAULT_OPPOSITE = "Reply rudely, vaguely, or with wild promises and guarantees."


class JudgeSettings(Strict):
    """The judge that compares or scores answers."""

    kind: Literal["local", "openai", "rules"] = Field(default="local", description="Kind of the judge.")
    reward_model: str | None = Field(
        default=None,
        min_length=1,
        max_length=2048,
        description="Reward model that judges in place of `kind`: a registered one, `name@version` or `name@alias`, or the folder of "
        "one as a local path or URL, for example of `neuroweaver models download`. Null: none.",
    )
    model: str | None = Field(
        default=None, description="local: reference of the model, null for the job's base model; openai: name of the model."
    )
    endpoint: str | None = Field(default=None, description="openai: base URL of an OpenAI-compatible API, with /v1.")
    api_key_env: str | None = Field(
        default=None,
        description="openai: name of the service's environment variable with the key, NEUROWEAVER_JUDGE_KEY_<NAME>.",
    )
    scoring: Literal["likelihood", "question"] = Field(
        default="likelihood",
        description="local: likelihood scores an answer by its mean log-likelihood under the principle minus under the "
        "opposite; question asks which of two is better, in both orders, and reads the token probabilities.",
    )
    timeout_seconds: Real = Field(default=30.0, gt=0, le=3600, description="openai: time-out of one request.")
    batch_size: Whole = Field(default=16, ge=1, le=4096, description="local and reward models: texts per forward pass.")

    @model_validator(mode="after")
    def _openai_names_its_endpoint(self) -> Self:
        if self.kind == "openai" and not (self.endpoint and self.model):
            raise ValueError("a judge of kind openai needs `endpoint` and `model`")
        return self

    @model_validator(mode="after")
    def _one_judge(self) -> Self:
        if self.reward_model is not None and (self.kind != "local" or self.model or self.endpoint or self.api_key_env):
            raise ValueError(
                "`reward_model` judges in place of `kind`; leave out `kind`, `model`, `endpoint` and `api_key_env`"
            )
        return self


class Rubric(Strict):
    """The criteria of the judge: a principle with its opposite, and a constitution of checkable rules."""

    principle: str = Field(
        default=DEFAULT_PRINCIPLE, min_length=1, max_length=20_000, description="Description of a good answer."
    )
    opposite: str = Field(
        default=DEFAULT_OPPOSITE, min_length=1, max_length=20_000, description="Description of a bad answer."
    )
    rules: tuple[Rule, ...] = Field(default=(), description="Constitution of the `rules` judge.")

    @property
    def sha256(self) -> str:
        """The digest of its JSON, by which results name it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


NO_RULE, ADD_RULES = "the `rules` judge has no rule to judge by", "add rules to the rubric, or choose another judge"
"""What is wrong if `lacks_rules`, and the remedy."""


def lacks_rules(judge: JudgeSettings, rubric: Rubric) -> bool:
    """Whether the judge judges by rules and there is none."""
    return judge.kind == "rules" and not rubric.rules


class FeedbackSettings(Strict):
    """How candidates become preference pairs."""

    judge: JudgeSettings = JudgeSettings()
    rubric: Rubric = Rubric()
    judged_field: str | None = Field(
        default=None, description="Field of a JSON answer that is judged; null: the whole text is judged."
    )
    equal_fields: tuple[str, ...] = Field(
        default=(),
        description="Fields of a JSON answer that are equal in both answers of a pair; they are taken from the chosen one.",
    )
    margin: Real = Field(
        default=0.2,
        ge=0,
        description="Least difference of the judge's scores of a pair; a smaller difference is a tie. Scales: nats per "
        "token (likelihood), share of rules kept (rules), preference from -1 to 1 (judges that compare), logarithm of the odds "
        "that the one is better (reward models: 0.2 is a probability of 0.55, 1 of 0.73, 2 of 0.88).",
    )
    pairs_per_prompt: Whole = Field(default=1, ge=1, le=64, description="The most pairs from one prompt's candidates.")

    @model_validator(mode="after")
    def _what_is_judged_may_differ(self) -> Self:
        if self.equal_fields and self.judged_field is None:
            raise ValueError(
                "`equal_fields` needs `judged_field`: a whole text that is judged cannot be changed afterwards"
            )
        if self.judged_field in self.equal_fields:
            raise ValueError(
                f"`equal_fields` contains the judged field {self.judged_field!r}: both answers would be the same"
            )
        return self
