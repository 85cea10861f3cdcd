"""Loads a model of which all weights are trained, those of the text decoder and the head, in fp32; writes whole models."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from services.trainer.modelling.base import load_base

Weights = Mapping[str, torch.Tensor]
_CONFIG = "config.json"
_TYPES = ("dtype", "torch_dtype")
"""Names that the type of the weights has had in config.json."""


def whole_model(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    *,
    trained_length: int | None = None,
    packed: bool = False,
    processes: int = 1,
) -> Any:
    """Load a model to train, whose weights `processes` share. They are fp32 and it computes in `dtype`, because small updates are lost
    in bf16.

    Raises UserFault if its files cannot be loaded.
    """
    model = load_base(
        folder, dtype, device, trained_length=trained_length, packed=packed, stored=torch.float32, processes=processes
    )
    return with_trained_weights(model)


def with_trained_weights(model: Any) -> Any:
    """Mark the weights that are trained; encoders of images and sounds stay as they are."""
    for part in (model.get_decoder(), model.get_output_embeddings()):
        for weight in part.parameters() if part is not None else ():
            weight.requires_grad_(True)
    return model


def save_model(model: Any, folder: Path, weights: Weights | None = None) -> None:
    """Write weights and configuration as they are; `weights` in place of the model's own if several processes shared those.

    The file of generation settings is left to the caller, who has the one that the model is served with.
    """
    model.generation_config = type(model.generation_config)()  # the library refuses to save some that it loads
    if weights is not None:
        del model.config.distributed_config  # by which the library would gather the weights
    model.save_pretrained(str(folder), state_dict=weights)
    (folder / "generation_config.json").unlink(missing_ok=True)


def write_whole(model: Any, folder: Path, base: Path, weights: Weights | None = None) -> None:
    """Write weights in fp32, as `save_model` does, and configuration. Trainers set tokens in the configuration, so it is that of `base`."""
    save_model(model, folder, weights)
    config = json.loads((base / _CONFIG).read_bytes())
    config = {name: value for name, value in config.items() if name not in _TYPES} | {"dtype": "float32"}
    (folder / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
