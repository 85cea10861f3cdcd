"""Names the settings of every training method."""

from schemas.recipes.distill import DistillSettings
from schemas.recipes.dpo import PreferenceSettings
from schemas.recipes.grpo import GrpoSettings
from schemas.recipes.kto import KtoSettings
from schemas.recipes.reward import RewardModelSettings
from schemas.recipes.rloo import RlooSettings
from schemas.recipes.sft import TrainingSettings

MethodSettings = (
    TrainingSettings
    | PreferenceSettings
    | KtoSettings
    | RewardModelSettings
    | GrpoSettings
    | RlooSettings
    | DistillSettings
)
"""The settings of a training method."""


def trains_all(settings: MethodSettings) -> bool:
    """Whether all weights are trained, not an adapter."""
    return isinstance(settings, TrainingSettings) and settings.adaptation == "full"


def section_of(method: str) -> str:
    """Return the name of a training method's section, in a request and in the settings of steps."""
    return {"sft": "training", "dpo": "preference"}.get(method, method)
