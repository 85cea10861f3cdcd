"""Prunes a model: sets the smallest weights to 0, or removes the layers, MLP channels or attention heads that matter least."""

from typing import Any

import torch

from schemas.recipes.compression import PruneSettings
from services.trainer.compression.importance import importance_of_channels, importance_of_heads, importance_of_layers
from services.trainer.compression.made import Compression
from services.trainer.compression.smaller import Kept, PrunableParts, parts_of, smaller
from services.trainer.compression.weights import write_model


def prune(work: Compression) -> None:
    """Write the pruned model."""
    model, settings = work.whole(), work.settings.prune
    if settings.what == "weights":
        zero_smallest(model, settings.share)
    else:
        parts = parts_of(model, settings.what)
        model = smaller(model, parts, _kept(model, parts, settings))
    write_model(model, work.folder, work.dtype)


@torch.no_grad()
def zero_smallest(model: Any, share: float) -> None:
    """Set the share of the weights of smallest magnitude to 0, in every linear layer of the text model but the head."""
    head = model.get_output_embeddings()
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if module is head or type(module).__name__ not in ("Linear", "Conv1D") or weight is None:
            continue
        count = max(1, int(share * weight.numel()))
        smallest = weight.detach().abs().flatten().topk(count, largest=False).indices
        weight.data.flatten()[smallest] = 0


def _kept(model: Any, parts: PrunableParts, settings: PruneSettings) -> Kept:
    """Return the numbers of what stays, in their order, for each layer or for the model."""
    measure = {"layers": importance_of_layers, "channels": importance_of_channels, "heads": importance_of_heads}
    scores = measure[parts.what](model, parts)
    stays = parts.count - max(1, int(settings.share * parts.count))
    return [score.cpu().topk(stays).indices.sort().values for score in scores]
