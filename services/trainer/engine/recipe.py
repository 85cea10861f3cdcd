"""Identifies a run by its recipe: only runs with equal recipes may share checkpoints or count as the same result."""

import hashlib
import json
from collections.abc import Mapping

from pydantic import JsonValue

from schemas.artifacts import ArtifactRef
from schemas.recipes.methods import MethodSettings


def recipe_of(
    settings: MethodSettings,
    base_sha256: str,
    template_sha256: str,
    inputs: Mapping[str, ArtifactRef],
) -> dict[str, JsonValue]:
    """Return the recipe of a run as plain values: its settings, the digests of the base model, the chat template and all inputs.

    Micro-batch size, activation checkpointing, packing and checkpoint settings are left out, since they do not change what is
    learnt.
    """
    decides = settings.model_dump(mode="json", exclude={"checkpoint_steps", "packing"})
    del decides["optimiser"]["micro_batch_size"], decides["optimiser"]["activation_checkpointing"]
    if decides.get("adaptation") == "lora":
        del decides["adaptation"]  # recipes of before it was a choice are the same
    for reward in decides.get("rewards", ()):
        if reward.get("feedback", ...) is None:
            del reward["feedback"]  # recipes of before judges could reward are the same
    digests: dict[str, JsonValue] = {name: ref.sha256 for name, ref in inputs.items()}
    return {
        "settings": decides,
        "base_model_sha256": base_sha256,
        "chat_template_sha256": template_sha256,
        "inputs": digests,
    }


def digest(recipe: Mapping[str, JsonValue]) -> str:
    """Return the SHA-256 of a recipe in canonical JSON."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
