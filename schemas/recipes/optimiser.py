"""Defines the settings of the optimiser and its schedule, which all training methods share."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from schemas.base import Real, Strict, Whole, WholeOrNone


class OptimiserSettings(Strict):
    """The optimiser and its schedule. The length is `steps`, or `epochs` if `steps` is null."""

    name: Literal["adamw", "adamw_8bit", "adafactor"] = Field(
        default="adamw",
        description="adamw: AdamW (Loshchilov and Hutter 2019); adamw_8bit: AdamW whose moments are quantised in blocks to 8 bits "
        "(Dettmers et al. 2022), for weights of 4,096 numbers and more; adafactor: Adafactor (Shazeer and Stern 2018) at the given "
        "rate, which keeps far less state for matrices.",
    )
    learning_rate: Real = Field(default=1e-3, gt=0, le=1, description="Peak learning rate.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="Shape of the learning rate after the warm-up."
    )
    warmup_ratio: Real = Field(default=0.05, ge=0, le=0.5, description="Share of the steps used for the warm-up.")
    weight_decay: Real = Field(default=0.0, ge=0, le=1, description="Decoupled weight decay.")
    max_grad_norm: Real = Field(default=1.0, gt=0, le=1000, description="Gradient clipping, L2 norm.")
    steps: WholeOrNone = Field(
        default=None, ge=1, le=1_000_000, description="Number of optimiser steps; null: computed from `epochs`."
    )
    epochs: Real = Field(default=1.0, gt=0, le=1000, description="Passes over the data; used if `steps` is null.")
    batch_size: Whole = Field(default=8, ge=1, le=65_536, description="Effective batch, rows (or pairs) per step.")
    micro_batch_size: WholeOrNone = Field(
        default=None, ge=1, le=65_536, description="Rows per forward pass; halved if memory runs out. Null: batch_size."
    )
    activation_checkpointing: bool = Field(
        default=False,
        description="Keep only the inputs of layers and compute the rest again in the backward pass: less memory, about a "
        "third more time, the same result.",
    )

    @model_validator(mode="after")
    def _micro_batch_divides(self) -> Self:
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}")
        return self


def with_own_defaults(**own: float) -> BeforeValidator:
    """Return what fills in a method's own defaults of the optimiser's settings, also where a request contains some of them."""
    return BeforeValidator(lambda given: {**own, **given} if isinstance(given, Mapping) else given)


PREFERENCE_RATE = 2e-4
"""Default learning rate of methods that learn from preferences or from a teacher."""
PreferenceOptimiser = Annotated[
    OptimiserSettings,
    with_own_defaults(learning_rate=PREFERENCE_RATE),
    Field(description="Optimiser and schedule; the rate is 2e-4 where it is left out."),
]
"""The optimiser's settings of these methods."""
