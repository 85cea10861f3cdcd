"""Runs the forward pass of a model on tensors without memory, of which PyTorch computes only the shapes."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from services.trainer.modelling.base_files import BaseFault

_LOG = logging.getLogger("torch._subclasses.fake_tensor")
_UNFIT = re.compile(
    r"size of tensor|must match|cannot be multiplied|expected size|invalid for input of size", re.IGNORECASE
)
"""What PyTorch says if the shapes of two tensors do not fit each other."""


class _Grouped(TorchFunctionMode):
    """Computes the shapes of the product of tokens and the weights of their experts, which PyTorch itself does for bfloat16 only."""

    def __torch_function__(
        self, function: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """As of any mode: called in place of every function of PyTorch within the block."""
        if function is not torch._grouped_mm or args[0].dtype == torch.bfloat16:
            return function(*args, **kwargs or {})
        return torch.matmul(args[0], args[1][0])


@contextmanager
def without_memory() -> Iterator[None]:
    """Within this block tensors have no memory. What cannot be computed so raises what PyTorch raises, without its report in the log."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    before, _LOG.disabled = _LOG.disabled, True
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), _Grouped():
            yield
    finally:
        _LOG.disabled = before


def emptied(model: Any) -> set[int]:
    """Replace weights and buffers by tensors of the CPU, without memory in the block of `without_memory`; return the identities of their
    storages."""
    own: set[int] = set()
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                empty = torch.empty(weight.shape, dtype=weight.dtype)
                module._parameters[name] = torch.nn.Parameter(empty, requires_grad=weight.requires_grad)
                own.add(empty.untyped_storage()._cdata)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
                own.add(module._buffers[name].untyped_storage()._cdata)
    return own


def refuse_unrunnable(model: Any) -> None:
    """Raise BaseFault if the shapes within a model, on the meta device, do not fit each other. What cannot be traced is no fault."""
    try:
        with without_memory(), torch.no_grad():
            emptied(model)
            ids = torch.zeros(1, 8, dtype=torch.long)
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except Exception as error:  # an architecture whose forward pass needs values raises whatever its code raises
        if not isinstance(error, RuntimeError) or _UNFIT.search(str(error)) is None:
            return
        what = f"its config.json describes a model that cannot compute: sizes of its layers do not fit each other{_sizes(model)}"
        raise BaseFault(what, "correct config.json, or take the one that belongs to the weights") from error


def _sizes(model: Any) -> str:
    text = model.config.get_text_config()
    names = ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim")
    told = [f"{name} {size}" for name in names if isinstance(size := getattr(text, name, None), int)]
    return f" ({', '.join(told)})" if told else ""
