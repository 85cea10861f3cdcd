"""Logits are the largest tensors of a small model; the head is given only the hidden states whose logits are wanted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def head_reads(model: Any, pick: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """While this is open, `pick` gets the hidden states [rows, tokens, hidden]; the logits are [1, picked, vocabulary].

    What a model does to its logits after the head (scaling, capping) stays in force. `picked` is made contiguous: PyTorch
    multiplies a strided batch by a frozen matrix one by one, with a copy of the matrix for each.
    """

    def before(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return (pick(inputs[0]).contiguous().unsqueeze(0),)

    hook = model.get_output_embeddings().register_forward_pre_hook(before)
    try:
        yield
    finally:
        hook.remove()
