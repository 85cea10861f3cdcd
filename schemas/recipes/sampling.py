"""Defines the settings of sampling candidates for feedback."""

from pydantic import Field

from schemas.base import Real, Strict, Whole


class SamplingSettings(Strict):
    """How candidates for feedback are sampled."""

    n: Whole = Field(default=4, ge=2, le=64, description="Candidates per prompt.")
    temperature: Real = Field(default=1.0, gt=0, le=5, description="Softmax temperature.")
    top_p: Real = Field(default=1.0, gt=0, le=1, description="Nucleus sampling: share of the probability mass.")
    prompts: Whole = Field(
        default=128, ge=1, le=1_000_000, description="Number of prompts of the train split that are used."
    )
    max_new_tokens: Whole = Field(default=128, ge=1, le=32_768, description="The most tokens per candidate.")
    batch_size: Whole = Field(default=16, ge=1, le=4096, description="Prompts per generation call.")
    seed: Whole = Field(default=0, ge=0, lt=2**32, description="Seed of the choice of prompts and of the sampling.")
