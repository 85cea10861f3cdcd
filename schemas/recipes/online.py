"""Defines the settings that the methods share which learn from rewards of sampled answers."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from schemas.base import Whole
from schemas.recipes.lora import LoraSettings
from schemas.recipes.optimiser import OptimiserSettings, with_own_defaults
from schemas.recipes.rewards import RewardSettings, refuse_equal_names
from schemas.recipes.sampled import SampledSettings

_RATE, _BATCH = 1e-4, 32
"""Defaults of the optimiser's settings."""


class OnlineSettings(SampledSettings):
    """What GRPO and RLOO share: rewards, sampling and training."""

    rewards: tuple[RewardSettings, ...] = Field(
        default=(),
        max_length=20,
        description="The rewards of an answer; a pipeline that trains by this method needs at least one.",
    )
    group_size: Whole = Field(default=8, ge=2, le=256, description="Answers that are sampled to each prompt and compared.")
    learn_cut_answers: bool = Field(
        default=True,
        description="Whether answers that `max_new_tokens` cuts are learnt from; otherwise they count only for the rewards that "
        "the others are compared with.",
    )
    optimiser: Annotated[OptimiserSettings, with_own_defaults(learning_rate=_RATE, batch_size=_BATCH)] = Field(
        default=OptimiserSettings(learning_rate=_RATE, batch_size=_BATCH),
        description="Optimiser and schedule. Here `batch_size` counts answers, a multiple of `group_size`, 32 where it is left "
        "out; an epoch is one pass over the prompts; and the rate is 1e-4 where it is left out.",
    )

    @model_validator(mode="after")
    def _batches_have_whole_groups(self) -> Self:
        if self.optimiser.batch_size % self.group_size:
            raise ValueError(
                f"optimiser.batch_size {self.optimiser.batch_size} counts answers and is not a multiple of group_size "
                f"{self.group_size}; take {self.group_size * max(1, self.optimiser.batch_size // self.group_size)}"
            )
        return self

    @model_validator(mode="after")
    def _rewards_have_their_own_names(self) -> Self:
        refuse_equal_names(self.rewards)
        return self


def refuse_pissa_with_reference(beta: float, lora: LoraSettings) -> None:
    """Raise ValueError if the reference would be a base model that the adapter's initialisation has altered."""
    if beta and lora.initialisation == "pissa":
        raise ValueError("the initialisation `pissa` alters the base model, which is the reference; set beta to 0")
