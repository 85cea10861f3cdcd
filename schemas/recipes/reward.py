"""Defines the settings of training a reward model, which scores answers."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Real, RealOrNone, Strict, Whole
from schemas.recipes.lora import LoraSettings, refuse_pissa_in_four_bits
from schemas.recipes.model import Precision
from schemas.recipes.optimiser import PREFERENCE_RATE, OptimiserSettings, PreferenceOptimiser


class RewardModelSettings(Strict):
    """Training of a reward model on preference pairs: an adapter and a head that give a chat one score, so that the score of
    the better answer is higher (Bradley and Terry 1952; Ouyang et al. 2022).

    The probability that one answer is better than another is the sigmoid of the difference of their scores.
    """

    center_rewards_coefficient: RealOrNone = Field(
        default=0.01,
        gt=0,
        le=100,
        description="Weight of the term that keeps the mean score of a pair near 0 (Eisenstein et al. 2023, who use 0.01); "
        "null: none.",
    )
    margin_scale: Real = Field(
        default=0.0,
        ge=0,
        le=100,
        description="Factor of the difference between the judge's scores of a pair, by which the learnt scores must differ more "
        "(Touvron et al. 2023); 0: none. It needs the pairs of a label step, since a data set's own pairs have no scores.",
    )
    lora: LoraSettings = LoraSettings()
    optimiser: PreferenceOptimiser = OptimiserSettings(learning_rate=PREFERENCE_RATE)
    precision: Precision = Field(default="auto", description="As in `training`; the head computes in fp32.")
    quantization: Literal["none", "nf4"] = Field(default="none", description="As in `training`.")
    max_length: Whole = Field(
        default=512,
        ge=8,
        le=131_072,
        description="The most tokens of prompt and answer together. Longer pairs are left out: the score is read behind the last "
        "token, which a cut answer does not have.",
    )
    checkpoint_steps: Whole = Field(default=5, ge=1, le=1_000_000, description="Optimiser steps between checkpoints.")
    seed: Whole = Field(
        default=0, ge=0, lt=2**32, description="Seed of the order of pairs, and of the new adapter and head."
    )

    @model_validator(mode="after")
    def _pissa_needs_whole_weights(self) -> Self:
        refuse_pissa_in_four_bits(self.lora, self.quantization)
        return self
