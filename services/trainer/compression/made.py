"""Defines what every method of compression gets and what it says of the model that it made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from schemas.recipes.compression import CompressionSettings
from services.chassis.executor.child import Context, Stopping
from services.trainer.steps.loading import LoadedModel


@dataclass(frozen=True)
class Compression:
    """One run of a method."""

    context: Context
    parent: LoadedModel
    settings: CompressionSettings
    folder: Path
    """An empty folder for the weights and the configuration of the model that is made."""

    def stage(self, done: int, of: int) -> None:
        """Report the stages that are done. Raises Stopping if the step was asked to end."""
        if self.context.stopping:
            raise Stopping
        self.context.progress(done, of, "stages")


@dataclass(frozen=True)
class Made:
    """What a method measured."""

    metrics: Mapping[str, float]
    facts: Mapping[str, str] = field(default_factory=dict)
