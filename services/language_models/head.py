"""Computes only the logits that are needed, since logits are the largest tensors of a small model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle


def read_at(model: Any, pick: Callable[[torch.Tensor], torch.Tensor]) -> RemovableHandle:
    """Let `pick` select from hidden states [rows, tokens, hidden] until the handle is removed; the logits are [1, picked, vocabulary].

    What a model does to its logits after the head (scaling, capping) still applies. `picked` is made contiguous, because
    PyTorch multiplies a strided batch by a frozen matrix row by row, with a copy of the matrix for each.
    """

    def before(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return (pick(inputs[0]).contiguous().unsqueeze(0),)

    handle: RemovableHandle = model.get_output_embeddings().register_forward_pre_hook(before)
    return handle


@contextmanager
def head_reads(model: Any, pick: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Do so within this block."""
    hook = read_at(model, pick)
    try:
        yield
    finally:
        hook.remove()
