"""Loads the frozen base model that an adapter is trained on or merged into, in the requested precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from services.chassis.executor.child import UserFault
from services.language_models.loading import load_causal
from services.language_models.scoring import Unscorable, load_scoring
from services.trainer.modelling.architecture import NO_SCORES, Architecture, architecture_of
from services.trainer.modelling.base_files import BaseFault, base_fault, is_fault_of_machine
from services.trainer.modelling.four_bits import require_four_bits
from services.trainer.modelling.packing import packed_attention
from services.trainer.modelling.sharded import shared_by

_SHORT = 256
"""Up to this many tokens, eager attention trains faster on a CPU in bf16 than the fused kernel: 2.5 times at 64, 1.2 at
256."""
_REPACKING = "support_avx512bf16_for_cpu"
"""bitsandbytes 0.50 repacks 4-bit weights for a kernel of its own at the first pass in evaluation mode; without that kernel
it then computes nonsense, and in every later training pass too. Without the flag it computes the same in both modes."""


def load_base(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    *,
    quantization: str = "none",
    trained_length: int | None = None,
    packed: bool = False,
    stored: torch.dtype | None = None,
    scoring_seed: int | None = None,
    processes: int = 1,
) -> Any:
    """Load a frozen causal language model that computes in `dtype`. `trained_length`: tokens of the longest row, if it is to be
    trained; `packed`: on several rows in one sequence; `stored`: the type of its weights, if it is another one; `scoring_seed`: seed of a
    head for scores in place of the model's own, None to keep its own; `processes`: how many share its weights.

    Raises UserFault if its files cannot be loaded.
    """
    options: dict[str, Any] = (
        {"quantization_config": _nf4(dtype), "device_map": {"": device}} if quantization == "nf4" else {}
    )
    with faults_of(folder):
        architecture = architecture_of(folder)
        if processes > 1:
            options |= shared_by(processes)
        attention = attention_of(architecture, dtype, device, trained_length)
        options["attn_implementation"] = packed_attention(architecture, dtype, device) if packed else attention
        if scoring_seed is None:
            model = load_causal(folder, stored or dtype, **options)
        else:
            model = load_scoring(folder, dtype, scoring_seed, **options)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if processes > 1:
        return model  # each part is where it is computed
    if quantization != "nf4":
        return model.to(device)
    for module in model.modules():
        if hasattr(module, _REPACKING):
            setattr(module, _REPACKING, False)
    return model


def attention_of(architecture: Architecture, dtype: torch.dtype, device: torch.device, trained_length: int | None) -> str:
    """Return the attention to load a model with. `trained_length`: tokens of the longest row, if it is to be trained."""
    short = trained_length is not None and trained_length <= _SHORT and device.type == "cpu"
    return "eager" if short and dtype == torch.bfloat16 else architecture.attention


@contextmanager
def faults_of(folder: Path) -> Iterator[None]:
    """Turn what a library raises on the files of a base model into UserFault; faults of the machine stay what they are."""
    try:
        yield
    except UserFault:
        raise
    except BaseFault as fault:
        raise base_fault(str(folder), fault.message, fault.remedy) from fault
    except Unscorable as unscorable:
        raise base_fault(str(folder), str(unscorable), NO_SCORES) from unscorable
    except Exception as error:  # the library raises whatever its parsers and layers raise
        if is_fault_of_machine(error):
            raise
        what = f"it cannot be loaded ({type(error).__name__})"
        raise base_fault(str(folder), what, "name a model that transformers loads from its folder alone") from error


def _nf4(dtype: torch.dtype) -> Any:
    """4-bit NormalFloat with double quantisation, Dettmers et al. 2023."""
    require_four_bits("training")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
