"""Defines the settings of an evaluation on the held-out split."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Real, Strict, Whole, WholeOrNone
from schemas.recipes.harness import HarnessSettings
from schemas.recipes.model import Precision
from schemas.rules import Rule

Metric = Literal["loss", "valid_json", "exact_match", "rules", "latency"]


class EvaluationSettings(Strict):
    """The metrics that are measured on the held-out split.

    `exact_match` and `number_match` use greedy answers, `rules` uses sampled answers. `loss` also gives `perplexity`. Every
    metric but the latency has the bounds of its 95 % confidence interval in `<name>_low` and `<name>_high`.
    """

    metrics: tuple[Metric, ...] = Field(
        default=("loss", "latency"), min_length=1, description="The metrics that are computed."
    )
    number_match: bool = Field(
        default=False,
        description="Also measure `number_match`: the number that an answer ends with equals that of the reference. It is the "
        "one behind the last `####`, or the last number of the text.",
    )
    exact_match_fields: tuple[str, ...] = Field(
        default=(), description="Fields of the JSON answer that must equal the reference; empty: the whole text."
    )
    rules: tuple[Rule, ...] = Field(
        default=(), description="Rules of the metric `rules`; an answer passes if it keeps all of them."
    )
    rules_field: str | None = Field(
        default=None, description="Field of the JSON answer that the rules check; null: the whole text."
    )
    samples: Whole = Field(
        default=2, ge=1, le=64, description="Sampled answers per prompt for `rules`, pass@k and the judge."
    )
    pass_at: tuple[Whole, ...] | None = Field(
        default=None,
        description="Each k of pass@k: the probability that one of k sampled answers passes, for `exact_match`, `number_match` "
        "and `rules` (Chen et al. 2021); null: `samples`; empty: none.",
    )
    temperature: Real = Field(default=1.0, gt=0, le=5, description="Softmax temperature of the sampled answers.")
    rows: WholeOrNone = Field(default=None, ge=1, description="The most rows of the split, in their order; null: all rows.")
    max_new_tokens: Whole = Field(default=128, ge=1, le=32_768, description="The most tokens per answer.")
    batch_size: Whole = Field(default=32, ge=1, le=4096, description="Rows per forward pass or generation call.")
    seed: Whole = Field(default=0, ge=0, lt=2**32, description="Seed of the sampled answers.")
    precision: Precision = Field(default="auto", description="As in `training`.")
    harness: HarnessSettings | None = Field(
        default=None, description="Tasks of lm-evaluation-harness that are measured, too; null: none."
    )

    @model_validator(mode="after")
    def _enough_samples_for_pass_at(self) -> Self:
        for k in self.pass_at or ():
            if not 1 <= k <= self.samples:
                raise ValueError(
                    f"pass_at {k} is not between 1 and the {self.samples} sampled answers per prompt (`samples`)"
                )
        return self
