"""Measures how much parts of a model matter: the less, the rather they are removed."""

from typing import Any

import torch

from services.trainer.compression.proof import logits_of, probes
from services.trainer.compression.smaller import PrunableParts


def importance_of_layers(model: Any, parts: PrunableParts) -> list[torch.Tensor]:
    """Return for each layer how much it turns its input: 1 minus the mean cosine of input and output (Men et al. 2024)."""
    turned = torch.zeros(parts.count)

    def listen(number: int) -> Any:
        def hook(_module: Any, inputs: Any, keywords: Any, output: Any) -> None:
            before = inputs[0] if inputs else keywords["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            turned[number] = 1 - torch.nn.functional.cosine_similarity(before.float(), after.float(), dim=-1).mean().cpu()

        return hook

    layers = model.get_submodule(parts.layers)
    handles = [layer.register_forward_hook(listen(number), with_kwargs=True) for number, layer in enumerate(layers)]
    try:
        logits_of(model, probes(model.config))
    finally:
        for handle in handles:
            handle.remove()
    return [turned]


@torch.no_grad()
def importance_of_channels(model: Any, parts: PrunableParts) -> list[torch.Tensor]:
    """Return for each MLP the products of the norms of what a channel reads and writes with."""
    mlps = [model.get_submodule(path) for path in parts.paths]
    return [
        mlp.gate_proj.weight.norm(dim=1) * mlp.up_proj.weight.norm(dim=1) * mlp.down_proj.weight.norm(dim=0) for mlp in mlps
    ]


@torch.no_grad()
def importance_of_heads(model: Any, parts: PrunableParts) -> list[torch.Tensor]:
    """Return for each attention the norms of what the heads of a group write: of the products of their value and output weights."""
    return [_written(model.get_submodule(path), parts) for path in parts.paths]


def _written(attention: Any, parts: PrunableParts) -> torch.Tensor:
    values = attention.v_proj.weight.unflatten(0, (parts.count, parts.width))
    outputs = attention.o_proj.weight.unflatten(1, (parts.count, -1, parts.width))
    return torch.stack(
        [torch.einsum("ohw,wi->hoi", outputs[:, group], values[group]).norm() for group in range(parts.count)]
    )
