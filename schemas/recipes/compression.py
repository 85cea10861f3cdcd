"""Defines the settings of the compression of a trained model."""

from typing import Literal

from pydantic import Field

from schemas.base import Real, Strict

CompressionMethod = Literal["merge"]


class CompressionSettings(Strict):
    """How a model is made from an adapter and its base model, or from a larger model."""

    method: CompressionMethod = Field(
        default="merge",
        description="merge: the adapter is merged into the base model in full precision; the result is a whole model.",
    )
    dtype: Literal["base", "fp32", "bf16", "fp16"] = Field(
        default="base", description="Type of the stored weights; base: that of the base model's files."
    )
    tolerance: Real | None = Field(
        default=None,
        gt=0,
        le=1,
        description="The largest difference between the logits of the stored model and those of base model and adapter, as a "
        "share of the spread of the latter (both as L2 norms); beyond it the step fails. Null: 0.0001 for fp32, 0.01 for fp16, "
        "0.05 for bf16.",
    )
