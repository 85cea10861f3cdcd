"""Defines the settings that all methods share which learn from answers that the model samples while it trains."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Real, Strict, Whole
from schemas.recipes.lora import LoraSettings, refuse_pissa_in_four_bits
from schemas.recipes.model import Precision


class SampledSettings(Strict):
    """Prompts, sampling and training."""

    temperature: Real = Field(
        default=1.0, gt=0, le=5, description="Softmax temperature of the sampling and of the probabilities that are learnt."
    )
    top_p: Real = Field(default=1.0, gt=0, le=1, description="Nucleus sampling: share of the probability mass.")
    max_prompt_tokens: Whole = Field(
        default=512, ge=8, le=131_072, description="Longer prompts are left out of the training and counted."
    )
    max_new_tokens: Whole = Field(default=128, ge=1, le=32_768, description="The most tokens per answer.")
    lora: LoraSettings = LoraSettings()
    precision: Precision = Field(default="auto", description="As in `training`.")
    quantization: Literal["none", "nf4"] = Field(default="none", description="As in `training`.")
    checkpoint_steps: Whole = Field(default=5, ge=1, le=1_000_000, description="Optimiser steps between checkpoints.")
    seed: Whole = Field(
        default=0, ge=0, lt=2**32, description="Seed of the order of prompts, of the sampling and of the new adapter."
    )

    @property
    def max_length(self) -> int:
        """The most tokens of prompt and answer together."""
        return self.max_prompt_tokens + self.max_new_tokens

    @model_validator(mode="after")
    def _pissa_needs_whole_weights(self) -> Self:
        refuse_pissa_in_four_bits(self.lora, self.quantization)
        return self
