"""In which numbers to compute is asked of the hardware, never inherited from a file; so is on how many cores."""

import os
from typing import TYPE_CHECKING

import psutil

from schemas.recipes import Precision

if TYPE_CHECKING:
    import torch


def device() -> "torch.device":
    """A CUDA device where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def computes_in_bf16(device: "torch.device") -> bool:
    """Whether the hardware multiplies bfloat16 itself. Without, bf16 is slower than fp32 on a CPU."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def compute_dtype(precision: Precision, device: "torch.device") -> "torch.dtype":
    """`auto`: bf16 where the hardware computes in it, else fp32."""
    import torch

    bf16 = precision == "bf16" or (precision == "auto" and computes_in_bf16(device))
    return torch.bfloat16 if bf16 else torch.float32


def use_physical_cores() -> None:
    """One thread per physical core that this process may use: hyper-threads share the units that do the work."""
    import torch

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, min(allowed, psutil.cpu_count(logical=False) or allowed)))
