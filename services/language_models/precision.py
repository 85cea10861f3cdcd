"""Chooses device, precision and number of threads by the hardware, never by a model's file."""

import os
from typing import TYPE_CHECKING, Any

import psutil

from schemas.recipes.model import Precision

if TYPE_CHECKING:
    import torch


_GIVEN = "CUDA_VISIBLE_DEVICES"
"""The variable that names the GPUs of this process. The executor sets it for steps that are to run on one."""


class DeviceGone(RuntimeError):
    """This process was given a GPU that is not there. It does not go on on the CPU, where it could take days."""

    def __init__(self, given: str) -> None:
        super().__init__(
            f"{_GIVEN} gives this process the GPU {given}, and PyTorch finds none: see what nvidia-smi says, restart the worker "
            "when the GPU is back, or unset the variable to compute on the CPU"
        )


def device() -> "torch.device":
    """Return a CUDA device if there is one, else the CPU. Raises DeviceGone."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    given = os.environ.get(_GIVEN, "").strip()
    if given and not given.startswith("-"):
        raise DeviceGone(given)
    return torch.device("cpu")


def is_computable(precision: Precision, device: "torch.device") -> bool:
    """Return whether the hardware computes in a precision at all, if slowly."""
    import torch

    return precision != "bf16" or device.type != "cuda" or bool(torch.cuda.is_bf16_supported())


def computes_in_bf16(device: "torch.device") -> bool:
    """Return whether the hardware has bfloat16 multiplication. Without it, bf16 is slower than fp32 on a CPU."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def compute_dtype(precision: Precision, device: "torch.device") -> "torch.dtype":
    """Return the dtype for a precision; `auto` is bf16 if the hardware computes in it, else fp32."""
    import torch

    bf16 = precision == "bf16" or (precision == "auto" and computes_in_bf16(device))
    return torch.bfloat16 if bf16 else torch.float32


def cast_weights(model: Any, dtype: "torch.dtype") -> Any:
    """Cast the weights of a model in place, and return it.

    Its buffers stay as they are, as when the library loads it in that type: `model.to(dtype)` would also round the frequencies of rotary
    positions, so that in bf16 a merged model would read positions otherwise than its base model does.
    """
    for weight in model.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.to(dtype)
    return model


def physical_cores() -> int:
    """Return the number of physical cores available to this process."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def use_physical_cores(processes: int = 1) -> None:
    """Use one thread per physical core available to this process, since hyper-threads share the arithmetic units; `processes`
    share the cores.
    """
    import torch

    torch.set_num_threads(max(1, physical_cores() // processes))
