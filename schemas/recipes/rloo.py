"""Defines the settings of REINFORCE leave-one-out."""

from typing import Self

from pydantic import Field, model_validator

from schemas.base import Real
from schemas.recipes.online import OnlineSettings, refuse_pissa_with_reference


class RlooSettings(OnlineSettings):
    """REINFORCE leave-one-out (Ahmadian et al. 2024): each answer is compared with the mean of the others to its prompt."""

    normalise_advantages: bool = Field(
        default=False, description="Whether the differences are brought to mean 0 and deviation 1 over the batch."
    )
    beta: Real = Field(
        default=0.05,
        ge=0,
        le=100,
        description="Weight of the distance from the model before training in the reward; 0: none.",
    )

    @model_validator(mode="after")
    def _pissa_changes_the_reference(self) -> Self:
        refuse_pissa_with_reference(self.beta, self.lora)
        return self

    @model_validator(mode="after")
    def _passes_agree(self) -> Self:
        if self.lora.dropout:
            raise ValueError(
                "rloo compares two passes over the same answer, which dropout makes differ; set lora.dropout to 0"
            )
        return self
