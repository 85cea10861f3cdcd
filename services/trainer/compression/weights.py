"""Writes the weights and the configuration of a whole model, so that transformers loads the same model from the folder alone."""

from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import torch

from schemas.reasons import Reason
from schemas.recipes.compression import CompressionSettings
from services.chassis.executor.child import UserFault
from services.trainer.modelling.weight_files import stored_tensors
from services.trainer.modelling.whole import save_model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_IN_FILES = {"F64": torch.float32, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""Types of safetensors, as torch's; double precision is of no use to a language model."""


def wanted_dtype(settings: CompressionSettings, base: Path) -> torch.dtype:
    """Return the type of the weights to store. Raises UserFault if it is to be the base model's, and that is no such type."""
    if settings.dtype != "base":
        return DTYPES[settings.dtype]
    sizes = Counter[str]()
    for tensor in stored_tensors(base).values():
        sizes[tensor.dtype] += prod(tensor.shape)
    ((most, _),) = sizes.most_common(1)
    if most not in _IN_FILES:
        what = f"most weights of the base model are stored as {most}"
        raise UserFault(
            Reason(field="compression.dtype", value="'base'", message=what, remedy=f"name one of {', '.join(DTYPES)}")
        )
    return _IN_FILES[most]


def write_model(model: Any, folder: Path, dtype: torch.dtype) -> None:
    """Cast `model` to `dtype` and write it. Raises UserFault if a weight is too large for the type."""
    _separate_head(model)
    model.to(dtype)
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            what = f"the weight {name} is not finite, or too large for {str(dtype).removeprefix('torch.')}"
            remedy = "set it to fp32 or bf16; if it is one of them, train again with a lower learning rate"
            raise UserFault(Reason(field="compression.dtype", message=what, remedy=remedy))
    save_model(model, folder)


def weights_size(*folders: Path | None) -> int:
    """Return the bytes of the files with weights in folders of models and adapters."""
    return sum(
        file.stat().st_size
        for folder in folders
        if folder
        for name in ("*.safetensors", "*.gguf")
        for file in folder.glob(name)
    )


def _separate_head(model: Any) -> None:
    """Let the configuration say so if the head is no longer one tensor with the embeddings."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    for config in {id(config): config for config in (model.config, model.config.get_text_config())}.values():
        if head is not None and getattr(config, "tie_word_embeddings", False) and head.weight is not embeddings.weight:
            config.tie_word_embeddings = False
