"""Computes the log-probability of answers, which training, preference losses and evaluation all use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from services.trainer.modelling.chat import Tokens
from services.trainer.modelling.head import head_reads

_UNSUPERVISED = -100


@dataclass(frozen=True, slots=True)
class Padded:
    """A batch of rows, padded at the end; all tensors are [rows, tokens] and int64."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor


def pad(rows: Sequence[Tokens], pad_id: int, device: torch.device) -> Padded:
    """Pad `rows` into one batch; labels are -100 except on completions."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, _UNSUPERVISED)
    for index, row in enumerate(rows):
        completion = torch.tensor(row.completion, dtype=torch.long)
        ids[index, : len(row)] = torch.tensor([*row.prompt, *row.completion])
        mask[index, : len(row)] = 1
        labels[index, len(row.prompt) : len(row)] = completion
    return Padded(ids.to(device), mask.to(device), labels.to(device))


def log_probabilities(model: Any, batch: Padded) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of every supervised token, fp32, [supervised], and the row of each."""
    targets = batch.labels[:, 1:]
    supervised = targets != _UNSUPERVISED

    with head_reads(model, lambda hidden: hidden[:, :-1][supervised]):
        logits = model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits.squeeze(0)
    losses = cross_entropy(logits.float(), targets[supervised], reduction="none")
    return -losses, supervised.nonzero()[:, 0]
