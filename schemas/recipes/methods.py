"""Names the settings of every training method."""

from schemas.recipes.dpo import PreferenceSettings
from schemas.recipes.kto import KtoSettings
from schemas.recipes.sft import TrainingSettings

MethodSettings = TrainingSettings | PreferenceSettings | KtoSettings
"""The settings of a training method."""
