"""Measures how likely a model finds the reference answers of rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from schemas.lines import Row
from services.chassis.executor.child import Context, Stopping
from services.language_models.chat_format.chat import Chat
from services.language_models.logits import tokens_of_logits
from services.trainer.modelling.likelihood import log_probabilities, pad


@dataclass(frozen=True, slots=True)
class ReferenceLoss:
    """The loss of one reference answer."""

    nll: float
    """Negative log-likelihood, summed over its supervised tokens."""
    tokens: int
    cut: bool
    """Whether tokens beyond the model's context length were left out."""

    @property
    def mean(self) -> float | None:
        """The mean over the tokens; None if none is supervised, as in a chat whose answers are all context."""
        return self.nll / self.tokens if self.tokens else None


@torch.inference_mode()
def reference_losses(
    context: Context, chat: Chat, model: Any, rows: Sequence[Row], limit: int | None, batch_size: int
) -> list[ReferenceLoss]:
    """Return the loss of each row's reference, whose tokens beyond `limit` are left out. Raises Stopping between two batches.

    Each prompt must be shorter than `limit`. A batch has at most `batch_size` rows, and fewer if their logits would take too much memory.
    """
    whole = chat.encode(rows, "last")
    read = whole if limit is None else [tokens.cut(limit) for tokens in whole]
    losses = [ReferenceLoss(0.0, 0, False)] * len(rows)  # of rows without a reference
    order = sorted((number for number in range(len(read)) if read[number].supervised), key=lambda number: len(read[number]))
    size = max(1, batch_size >> context.task.memory_failures)
    most, done = tokens_of_logits(int(model.config.get_text_config().vocab_size)), 0
    for batch in _batches(order, [tokens.supervised for tokens in read], size, most):
        if context.stopping:
            raise Stopping
        padded = pad([read[number] for number in batch], chat.pad_id, model.device)
        logps, owner = log_probabilities(model, padded)
        sums = torch.zeros(len(batch), device=logps.device).index_add(0, owner, logps).tolist()
        for number, total in zip(batch, sums, strict=True):
            tokens, of = read[number], whole[number]
            losses[number] = ReferenceLoss(-total, tokens.supervised, len(tokens) < len(of))
        done += len(batch)
        context.progress(done, len(order), "references")
    return losses


def _batches(order: Sequence[int], scored: Sequence[int], size: int, most: int) -> Iterator[Sequence[int]]:
    """Yield consecutive numbers in batches of at most `size`, whose tokens that are scored are `most` together, or one row's."""
    batch: list[int] = []
    tokens = 0
    for number in order:
        if batch and (len(batch) == size or tokens + scored[number] > most):
            yield batch
            batch, tokens = [], 0
        batch.append(number)
        tokens += scored[number]
    if batch:
        yield batch
