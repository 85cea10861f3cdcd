"""What the folder of a base model may not hold: anything that has its loader run code or read elsewhere."""

import json
from pathlib import Path

from services.chassis.storage.sources.allowed import Refusal

_CONFIGS = ("config.json", "tokenizer_config.json", "processor_config.json")
_SIZE_LIMIT = 256 * 1024 * 1024


def model_refusal(folder: Path) -> Refusal | None:
    """Why no model is loaded from `folder`; None where its loader reads nothing but its files.

    An adapter names its base by a path of its own, and an index names the files of the weights: both could lead anywhere.
    """
    if (folder / "adapter_config.json").exists():
        return Refusal("it holds an adapter, which names another model by itself", "name the base model of that adapter")
    for index in folder.glob("*.index.json"):
        weights = _parsed(index).get("weight_map")
        if isinstance(weights, dict) and not all(_plain(name) for name in weights.values()):
            return Refusal("the index of its weights names files outside the folder", "put the weights beside the index")
    return None


def brings_code(folder: Path) -> bool:
    """Whether the model wants code of its own to be run, which is never done."""
    return any("auto_map" in _parsed(folder / name) for name in _CONFIGS)


def _plain(name: object) -> bool:
    return isinstance(name, str) and bool(name) and not {"/", "\\"} & set(name) and not name.startswith(".")


def _parsed(file: Path) -> dict[str, object]:
    """The object in a file; none where there is none: its loader says so."""
    try:
        found = json.loads(file.read_bytes()) if file.stat().st_size <= _SIZE_LIMIT else None
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
