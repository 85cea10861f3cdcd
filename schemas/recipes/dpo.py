"""Defines the settings of training on preference pairs."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Real, Strict, Whole
from schemas.recipes.lora import LoraSettings, refuse_altered_reference
from schemas.recipes.model import Precision
from schemas.recipes.optimiser import PREFERENCE_RATE, OptimiserSettings, PreferenceOptimiser


class PreferenceLoss(Strict):
    """One term of the preference loss."""

    kind: Literal["sigmoid", "ipo", "hinge", "robust", "sft"] = Field(description="Name of the loss, as in TRL's DPO.")
    weight: Real = Field(default=1.0, gt=0, le=100, description="Factor of the term.")


class PreferenceSettings(Strict):
    """Training on preference pairs with DPO, Rafailov et al. 2023."""

    method: Literal["dpo"] = Field(default="dpo", description="The method.")
    beta: Real = Field(default=0.1, gt=0, le=100, description="DPO's beta: the strength of the tie to the reference model.")
    losses: tuple[PreferenceLoss, ...] = Field(
        default=(PreferenceLoss(kind="sigmoid"), PreferenceLoss(kind="sft", weight=0.5)),
        min_length=1,
        description="Terms of the loss; their weighted sum is minimised.",
    )
    apo: Literal["zero", "down"] | None = Field(
        default=None,
        description="Anchored preference optimisation (D'Oosterlinck et al. 2024) in place of the term `sigmoid`, with its "
        "weight. zero: chosen answers become likelier and rejected ones less likely, for chosen answers that are better than "
        "the model's own; down: both become less likely, rejected ones more so.",
    )
    label_smoothing: Real = Field(
        default=0.1, ge=0, lt=0.5, description="Expected share of pairs with the wrong label; for the loss `robust`."
    )
    lora: LoraSettings = Field(
        default=LoraSettings(),
        description="The adapter where none is an input. Training that continues from an adapter keeps that adapter's options.",
    )
    optimiser: PreferenceOptimiser = OptimiserSettings(learning_rate=PREFERENCE_RATE)
    precision: Precision = Field(default="auto", description="As in `training`.")
    quantization: Literal["none", "nf4"] = Field(default="none", description="As in `training`.")
    max_length: Whole = Field(default=512, ge=8, le=131_072, description="The most tokens of prompt and answer together.")
    checkpoint_steps: Whole = Field(default=5, ge=1, le=1_000_000, description="Optimiser steps between checkpoints.")
    seed: Whole = Field(default=0, ge=0, lt=2**32, description="Seed of the order of pairs.")

    @model_validator(mode="after")
    def _apo_has_a_term_to_replace(self) -> Self:
        if self.apo and "sigmoid" not in {term.kind for term in self.losses}:
            raise ValueError(
                "`apo` takes the place of the term `sigmoid`, and `losses` has none; add it, or leave `apo` out"
            )
        return self

    @model_validator(mode="after")
    def _the_reference_is_unaltered(self) -> Self:
        refuse_altered_reference(self.lora, "dpo")
        return self
