"""Proves that a stored model computes what it was made from: the logits of both on the same tokens differ by little."""

from typing import Any

import torch

from schemas.reasons import Reason
from services.chassis.executor.child import UserFault
from services.language_models.lengths import context_length

_ROWS, _LENGTH = 4, 32
_TOLERANCE = {"float32": 1e-4, "f32": 1e-4, "float16": 2e-2, "f16": 2e-2, "bfloat16": 0.1, "bf16": 0.1, "q8_0": 0.2}
"""The largest difference by the type of the stored weights: their rounding, summed up over the layers of deep models."""


def probes(config: Any) -> torch.Tensor:
    """Return rows of random token ids, always the same ones, so that all of the vocabulary may occur."""
    length = min(_LENGTH, context_length(config) or _LENGTH)
    source = torch.Generator().manual_seed(0)
    return torch.randint(config.get_text_config().vocab_size, (_ROWS, length), generator=source)


@torch.inference_mode()
def logits_of(model: Any, rows: torch.Tensor) -> torch.Tensor:
    """Return the model's fp32 logits on the rows, on the CPU: rows, positions, vocabulary."""
    logits: torch.Tensor = model(input_ids=rows.to(model.device)).logits
    return logits.float().cpu()


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the L2 norm of the difference as a share of the spread of `wanted` around its means over the vocabulary."""
    spread = (wanted - wanted.mean(dim=-1, keepdim=True)).norm()
    return float((found - wanted).norm() / spread.clamp_min(torch.finfo(torch.float32).tiny))


def refuse_difference(found: float, stored_as: str, tolerance: float | None) -> None:
    """Raise UserFault if the difference is beyond the tolerance, or no number."""
    allowed = tolerance or _TOLERANCE[stored_as]
    if not found <= allowed:
        what = f"the logits of the stored model differ by {found:.2g} of their spread from those of its parent"
        remedy = "store it in a wider type (compression.dtype: fp32, or compression.gguf_type: f32), or allow more if the evaluation of the model is good"
        raise UserFault(Reason(field="compression.tolerance", value=f"{allowed:g}", message=what, remedy=remedy))


def refuse_other_merge(found: float) -> None:
    """Raise UserFault if a merge in full precision, before anything is rounded, computes something else than its parts."""
    if not found <= _TOLERANCE["float32"]:
        what = f"the merge computes something else than base model and adapter: their logits differ by {found:.2g} of their spread"
        remedy = "register the adapter itself, or train one with other targets or without modules_to_save"
        raise UserFault(Reason(field="inputs.adapter", message=what, remedy=remedy))
