"""Computes the log-probability of answers, which training, preference losses and evaluation all use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from services.language_models.padding import pad_rows
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
    """Pad `rows` into one batch; labels are -100 except on supervised tokens."""
    batch = pad_rows([row.ids for row in rows], pad_id, "right", device)
    labels = [
        [token if learnt else _UNSUPERVISED for token, learnt in zip(row.ids, row.learnt, strict=True)] for row in rows
    ]
    return Padded(*batch, pad_rows(labels, _UNSUPERVISED, "right", device).ids)


def log_probabilities(model: Any, batch: Padded) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of every supervised token, fp32, [supervised], and the row of each."""
    targets = batch.labels[:, 1:]
    supervised = targets != _UNSUPERVISED

    with head_reads(model, lambda hidden: hidden[:, :-1][supervised]):
        logits = model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits.squeeze(0)
    losses = cross_entropy(logits.float(), targets[supervised], reduction="none")
    return -losses, supervised.nonzero()[:, 0]
