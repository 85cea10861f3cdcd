"""Finds the layers of a model that a LoRA adapter can change."""

from collections.abc import Iterator
from typing import Any

import torch

_MAMBA_FUSED = frozenset({"out_proj", "conv1d"})
"""Layers whose weights Mamba's fused kernel reads past the adapter; PEFT refuses them."""


def linear_layers(model: Any) -> list[str]:
    """Return the paths of all linear layers of the text decoder but the head: nn.Linear, and GPT-2's Conv1D."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    fused = _MAMBA_FUSED if "mamba" in str(model.config.model_type) else frozenset()
    return [
        path
        for path, part in _of_decoder(model)
        if isinstance(part, torch.nn.Linear | Conv1D) and part is not head and last(path) not in fused
    ]


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
