"""Estimates the most memory that a compression takes, without loading a weight.

Every method holds the parent in fp32 and, beside it, what is made of it and what is written. On a processor the memory of what was
computed for the comparison of the parent is kept by the allocator, in pieces that the weights do not fit into, so both add up.
"""

from typing import NamedTuple

import torch

from schemas.recipes.compression import CompressionSettings
from services.trainer.modelling.architecture import Architecture
from services.trainer.modelling.generation_memory import (
    SCORED,
    InferenceEstimate,
    activation_bytes,
    at_its_peak,
    scored_at_once,
)

_MADE = 8.0
"""Bytes of a weight: in fp32, and as many for what is made and written. Measured 7.4 to 8.1 for the methods."""
_READ_BACK = 6.0
"""Bytes of a weight while a GGUF file, which is mapped, is read back in fp32 and cast to what the machine computes in."""
_IN_GGUF = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 1 + 1 / 16}


class Compared(NamedTuple):
    """The held-out rows that are scored at once."""

    rows: int
    length: int


def compression_estimate(
    architecture: Architecture,
    settings: CompressionSettings,
    compared: Compared,
    dtype: torch.dtype,
    device: str,
    *,
    adapted: bool,
) -> InferenceEstimate:
    """Return the estimate of a compression whose models are compared in `dtype`; an adapter is merged first if the parent is `adapted`.

    Raises BaseFault as building the model does.
    """
    made = max(_MADE, _READ_BACK + _IN_GGUF[settings.gguf_type]) if settings.method == "gguf" else _MADE
    tokens = compared.rows * compared.length
    return at_its_peak(
        architecture,
        dtype,
        device,
        cache=0,
        logits=SCORED * architecture.vocabulary * scored_at_once(architecture, *compared),
        activations=activation_bytes(architecture, tokens, dtype),
        copies=round((made - dtype.itemsize) * architecture.parameters),
        full=adapted,
        files=0,
    )
