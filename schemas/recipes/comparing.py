"""Defines what a step of kind compare judges: answers of two models to the same prompts, which no step of the job made."""

from pydantic import Field

from schemas.artifacts import ArtifactRef
from schemas.base import Strict


class ComparisonSettings(Strict):
    """Two answers to each of some prompts."""

    pairs: ArtifactRef = Field(
        description="Their artifact, which lies where the services keep answers of callers for a while."
    )
