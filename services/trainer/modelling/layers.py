"""Finds the layers of a model that a LoRA adapter can change."""

from collections.abc import Iterator
from typing import Any

import torch

_PAST_ADAPTERS = {"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"}
_READ_DIRECTLY = frozenset({"out_proj", "dt_proj"})
"""Layers of these state-space models whose weights are read past an adapter: it would get no gradient, and PEFT refuses it."""


def linear_layers(model: Any) -> list[str]:
    """Return the paths of all linear layers of the text decoder but the head: nn.Linear, and GPT-2's Conv1D."""
    head = model.get_output_embeddings()
    direct = _READ_DIRECTLY if model.config.get_text_config().model_type in _PAST_ADAPTERS else frozenset()
    return [path for path, part in _of_decoder(model) if _is_linear(part) and part is not head and last(path) not in direct]


def _is_linear(part: Any) -> bool:
    """Whether a layer computes what its class says; some routers derive from nn.Linear and return several tensors."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(part, torch.nn.Linear):
        return type(part).forward is torch.nn.Linear.forward or type(part).__module__.startswith("bitsandbytes.")
    return isinstance(part, Conv1D)


def all_linear(model: Any) -> list[str]:
    """Return target names for all linear layers: their last parts, or whole paths where a last part means other layers too."""
    paths = linear_layers(model)
    inside, names = set(paths), {last(path) for path in paths}
    shared = {last(path) for path, _ in model.named_modules() if last(path) in names and path not in inside}
    return sorted({path if last(path) in shared else last(path) for path in paths})


def last(path: str) -> str:
    """Return the last part of a module's path."""
    return path.rpartition(".")[2]


def _of_decoder(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the modules of the text decoder with their paths in `model`: images and sounds are not trained on."""
    decoder = model.get_decoder()
    within = {id(part) for part in decoder.modules()}
    yield from ((path, part) for path, part in model.named_modules() if id(part) in within)
