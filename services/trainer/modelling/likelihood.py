"""Computes the log-probability of answers, which training, preference losses and evaluation all use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from services.language_models.chat_format.chat import Tokens
from services.language_models.head import head_reads
from services.language_models.padding import pad_rows

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
    logits, targets, owner = _read(model, batch)
    return -cross_entropy(logits, targets, reduction="none"), owner


def row_scores(model: Any, batch: Padded) -> list[tuple[float, bool]]:
    """For each row the log-probability of its supervised tokens together, and whether each of them is the most likely one."""
    logits, targets, owner = _read(model, batch)
    logps = -cross_entropy(logits, targets, reduction="none")
    missed = (logits.argmax(dim=-1) != targets).float()
    rows = len(batch.ids)
    sums, misses = (torch.zeros(rows, device=logps.device).index_add(0, owner, values) for values in (logps, missed))
    return [(total, not miss) for total, miss in zip(sums.tolist(), misses.tolist(), strict=True)]


def _read(model: Any, batch: Padded) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The logits before every supervised token, fp32, [supervised, vocabulary], the token, and the row of each."""
    targets = batch.labels[:, 1:]
    supervised = targets != _UNSUPERVISED

    with head_reads(model, lambda hidden: hidden[:, :-1][supervised]):
        logits = model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits.squeeze(0)
    return logits.float(), targets[supervised], supervised.nonzero()[:, 0]
