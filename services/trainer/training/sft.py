"""Supervised fine-tuning: trains on the answers of the rows; prompts are context without loss."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from services.trainer.modelling.chat import Tokens
from services.trainer.modelling.likelihood import log_probabilities, pad

_VALIDATED_AT_MOST = 32
"""The most rows of the validation split that are measured, so that validation takes little of the training time."""
_VALIDATED_AT_ONCE = 8


class SupervisedRows:
    """Mean cross-entropy over the supervised tokens of a batch."""

    def __init__(self, rows: Sequence[Tokens], validation: Sequence[Tokens], pad_id: int, device: torch.device) -> None:
        self._rows, self._validation = rows, sorted(validation[:_VALIDATED_AT_MOST], key=len)
        self._pad_id, self._device = pad_id, device
        self.lengths = [len(row) for row in rows]

    def begin(self, model: Any, on_part: Callable[[], None]) -> None:
        """Do nothing: there is nothing to prepare."""

    def loss(self, model: Any, examples: Sequence[int], batch: Sequence[int]) -> tuple[torch.Tensor, Mapping[str, float]]:
        """Return the examples' summed loss divided by the number of supervised tokens of the whole batch."""
        supervised = sum(self._rows[example].supervised for example in batch)
        padded = pad([self._rows[example] for example in examples], self._pad_id, self._device)
        return -log_probabilities(model, padded)[0].sum() / supervised, {}

    def validate(self, model: Any) -> Mapping[str, float]:
        """Return the mean loss per supervised token of the validation rows."""
        if not self._validation:
            return {}
        total, tokens = 0.0, 0
        for start in range(0, len(self._validation), _VALIDATED_AT_ONCE):
            padded = pad(self._validation[start : start + _VALIDATED_AT_ONCE], self._pad_id, self._device)
            values = log_probabilities(model, padded)[0]
            total, tokens = total - values.sum().item(), tokens + len(values)
        return {"validation_loss": total / tokens}
