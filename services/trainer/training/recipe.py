"""A checkpoint may be resumed, and a result called the same, only where everything that decides it is the same."""

import hashlib
import json
from collections.abc import Mapping

from pydantic import JsonValue

from schemas.artifacts import ArtifactRef
from schemas.recipes import PreferenceSettings, TrainingSettings


def recipe_of(
    settings: TrainingSettings | PreferenceSettings, base_sha256: str, inputs: Mapping[str, ArtifactRef]
) -> dict[str, JsonValue]:
    """The recipe of a run as plain values: its settings, the digests of the base model and of all inputs.

    Micro-batch and checkpoints are left out: the effective batch stays the same however it is cut.
    """
    decides = settings.model_dump(mode="json", exclude={"checkpoint_steps"})
    del decides["optimiser"]["micro_batch_size"]
    digests: dict[str, JsonValue] = {name: ref.sha256 for name, ref in inputs.items()}
    return {"settings": decides, "base_model_sha256": base_sha256, "inputs": digests}


def digest(recipe: Mapping[str, JsonValue]) -> str:
    """SHA-256 of a recipe in canonical JSON."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
