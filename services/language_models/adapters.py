"""Reads the options of a stored LoRA adapter: only those that say what its weights are, never one that alters the base model.

PEFT also reads options that change the base's weights when an adapter is made (PiSSA, LoftQ), repeat its layers, import modules by
name, or apply the adapter to some tokens only. An adapter with one of them would be another model here than where it was made.
"""

import json
from pathlib import Path
from typing import Any

CONFIG = "adapter_config.json"
_READ = frozenset({
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "modules_to_save", "fan_in_fan_out", "use_rslora",
    "use_dora", "task_type", "rank_pattern", "alpha_pattern", "layers_to_transform", "layers_pattern", "lora_bias",
    "target_parameters", "trainable_token_indices",
})  # fmt: skip
_IGNORED = frozenset({
    "peft_type", "base_model_name_or_path", "revision", "auto_mapping", "inference_mode", "peft_version", "parent_library",
    "init_lora_weights",
})  # fmt: skip
"""Options about where an adapter comes from, and how its weights began."""
_BEGINNINGS = (None, True, False, "gaussian")
"""Beginnings of an adapter that leave the base model's weights as they are."""


class ForeignOption(ValueError):
    """An adapter has an option that is not read."""


def stored_lora(folder: Path) -> Any:
    """Return PEFT's configuration of the adapter in `folder`.

    Raises ForeignOption for an option that would be lost, and OSError, ValueError or TypeError for a file that is none.
    """
    from peft import LoraConfig

    given = json.loads((folder / CONFIG).read_bytes())
    if not isinstance(given, dict) or given.get("peft_type", "LORA") != "LORA":
        raise ForeignOption(f"its {CONFIG} is not one of a LoRA adapter")
    usual = json.loads(json.dumps(LoraConfig().to_dict(), default=sorted))
    known = _READ | _IGNORED
    others = [name for name, value in given.items() if name not in known and value and value != usual.get(name)]
    if given.get("init_lora_weights") not in _BEGINNINGS:
        others.append("init_lora_weights")
    if others:
        named = ", ".join(sorted(name for name in others if name.isidentifier())) or "with odd names"
        raise ForeignOption(f"its {CONFIG} has options that are not read here: {named}")
    return LoraConfig(**{name: given[name] for name in _READ if name in given})
