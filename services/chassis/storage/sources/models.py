"""Refuses base model folders with anything that makes the loader run code or read other files."""

import json
from pathlib import Path

from services.chassis.storage.sources.allowed import Refusal

_CONFIGS = ("config.json", "tokenizer_config.json", "processor_config.json")
_SIZE_LIMIT = 256 * 1024 * 1024


def model_refusal(folder: Path) -> Refusal | None:
    """Return why no model may be loaded from `folder`; None if its loader reads only its files.

    An adapter names the path of its base, and an index names the files of the weights: both could point anywhere.
    """
    if (folder / "adapter_config.json").exists():
        return Refusal(
            "it contains an adapter, which names another model",
            "name the base model of that adapter; if the folder also has whole weights, remove adapter_config.json from it",
        )
    for index in folder.glob("*.index.json"):
        weights = _parsed(index).get("weight_map")
        if isinstance(weights, dict) and not all(_plain(name) for name in weights.values()):
            return Refusal(
                "the index of its weights names files outside the folder", "put the weights into the folder of the index"
            )
    return None


def brings_code(folder: Path) -> bool:
    """Return whether the model requires its own code to be run, which is never done."""
    return any("auto_map" in _parsed(folder / name) for name in _CONFIGS)


def _plain(name: object) -> bool:
    return isinstance(name, str) and bool(name) and not {"/", "\\"} & set(name) and not name.startswith(".")


def _parsed(file: Path) -> dict[str, object]:
    """Return the JSON object in a file; empty if there is none, which the loader reports."""
    try:
        found = json.loads(file.read_bytes()) if file.stat().st_size <= _SIZE_LIMIT else None
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
