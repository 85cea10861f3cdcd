"""Loads whole models that a step made: with weights in full precision, quantised by bitsandbytes, or as a GGUF file."""

from pathlib import Path
from typing import Any

import torch

from services.language_models.loading import load_causal, load_config
from services.trainer.modelling.base import faults_of, load_base
from services.trainer.modelling.four_bits import with_bitsandbytes

GGUF = "model.gguf"
"""Name of the file of a model that is stored as GGUF."""


def load_whole(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """Load a model for inference, in `dtype`; one that bitsandbytes quantised is loaded as it was stored, because transformers would
    cast some of its other weights and leave some. Of a GGUF file transformers reads the weights as numbers of that type, so its speed is
    not that of llama.cpp.

    Raises UserFault if its files cannot be loaded.
    """
    if (folder / GGUF).exists():
        with faults_of(folder):
            return load_causal(folder, dtype, gguf_file=GGUF).to(device).eval()
    if not is_quantised(folder):
        return load_base(folder, dtype, device).eval()
    with faults_of(folder):
        with_bitsandbytes()
        return load_causal(folder, load_config(folder).dtype or dtype, device_map={"": device}).eval()


def is_quantised(folder: Path) -> bool:
    """Whether the weights of a model are quantised, so that it cannot be cast to another type."""
    with faults_of(folder):
        return getattr(load_config(folder), "quantization_config", None) is not None
