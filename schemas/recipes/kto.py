"""Defines the settings of training on judged answers."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Real, Strict, Whole
from schemas.recipes.lora import LoraSettings, refuse_altered_reference
from schemas.recipes.model import Precision
from schemas.recipes.optimiser import PREFERENCE_RATE, OptimiserSettings, PreferenceOptimiser


class KtoSettings(Strict):
    """Training on single answers that are wanted or not, without pairs: KTO, Ethayarajh et al. 2024."""

    beta: Real = Field(default=0.1, gt=0, le=100, description="Strength of the tie to the reference model.")
    loss: Literal["kto", "apo_zero"] = Field(
        default="kto",
        description="kto: with the mean distance from the reference as reference point; apo_zero: with 0 as reference point.",
    )
    desirable_weight: Real = Field(default=1.0, gt=0, le=100, description="Weight of the wanted answers.")
    undesirable_weight: Real = Field(
        default=1.0,
        gt=0,
        le=100,
        description="Weight of the unwanted answers. With few of a kind, a weight that balances the sums of both helps.",
    )
    lora: LoraSettings = Field(default=LoraSettings(), description="As in `preference`.")
    optimiser: PreferenceOptimiser = OptimiserSettings(learning_rate=PREFERENCE_RATE)
    precision: Precision = Field(default="auto", description="As in `training`.")
    quantization: Literal["none", "nf4"] = Field(default="none", description="As in `training`.")
    max_length: Whole = Field(default=512, ge=8, le=131_072, description="The most tokens of prompt and answer together.")
    checkpoint_steps: Whole = Field(default=5, ge=1, le=1_000_000, description="Optimiser steps between checkpoints.")
    seed: Whole = Field(default=0, ge=0, lt=2**32, description="Seed of the order of answers and of the new adapter.")

    @model_validator(mode="after")
    def _the_reference_is_unaltered(self) -> Self:
        refuse_altered_reference(self.lora, "kto")
        return self
