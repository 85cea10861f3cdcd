"""Defines the settings of distillation, in which a model learns from the probabilities of a teacher."""

from pydantic import Field

from schemas.base import Real
from schemas.recipes.optimiser import PREFERENCE_RATE, OptimiserSettings, PreferenceOptimiser
from schemas.recipes.sampled import SampledSettings


class DistillSettings(SampledSettings):
    """On-policy distillation (Agarwal et al. 2024): the model samples answers, and learns the teacher's probabilities of every
    token of them. Every step samples its own answers. The teacher has the precision of the model, and is never quantised."""

    teacher: str | None = Field(
        default=None,
        min_length=1,
        max_length=2048,
        description="Reference of the teacher, in the forms of `base_model`. Its tokenizer must be that of the base model. A "
        "pipeline that trains by this method needs it.",
    )
    beta: Real = Field(
        default=1.0,
        ge=0,
        le=1,
        description="The divergence. 0: forward KL, which covers all that the teacher would say; 1: reverse KL, which avoids what it "
        "would not; between: the generalised Jensen-Shannon divergence.",
    )
    optimiser: PreferenceOptimiser = OptimiserSettings(learning_rate=PREFERENCE_RATE)
