"""Defines the settings of group relative policy optimisation."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Real
from schemas.recipes.online import OnlineSettings, refuse_pissa_with_reference


class GrpoSettings(OnlineSettings):
    """Group relative policy optimisation (Shao et al. 2024): answers are compared with the others to the same prompt.

    Every step samples its own answers, so the model that learns is the one that answered, and no ratio is clipped.
    """

    loss: Literal["dapo", "grpo", "dr_grpo"] = Field(
        default="dapo",
        description="How tokens are averaged. dapo (Yu et al. 2025): over all tokens of the batch; grpo: within each answer, "
        "then over answers, which favours short ones; dr_grpo (Liu et al. 2025): by the constant max_new_tokens.",
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        default="group",
        description="Whether differences of rewards are divided by the deviation within the group, within the batch, or not.",
    )
    beta: Real = Field(
        default=0.0,
        ge=0,
        le=100,
        description="Strength of the tie to the model before training; 0: none, and no reference.",
    )

    @model_validator(mode="after")
    def _pissa_changes_the_reference(self) -> Self:
        refuse_pissa_with_reference(self.beta, self.lora)
        return self
