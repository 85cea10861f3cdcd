"""Direct preference optimisation (Rafailov et al. 2023): trains on pairs; the reference is the adapter before training.

The reference does not change, so its log-probabilities are computed once, before the first step, with the weights that
training starts from. No second adapter is kept in memory, and none can be saved by mistake.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from schemas.recipes import PreferenceSettings
from services.trainer.modelling.chat import Tokens
from services.trainer.modelling.likelihood import log_probabilities, pad
from services.trainer.training.preference_losses import Pairs, pair_losses, sft_loss
from services.trainer.training.schedule import micro_batches


class PreferencePairs:
    """The weighted sum of preference losses over pairs of answers."""

    def __init__(
        self,
        pairs: Sequence[tuple[Tokens, Tokens]],
        used: Sequence[int],
        settings: PreferenceSettings,
        size: int,
        pad_id: int,
        device: torch.device,
    ) -> None:
        """`pairs` are (chosen, rejected); training uses only those in `used`, in forward passes of `size` pairs."""
        self._pairs, self._used, self._settings, self._size = pairs, used, settings, size
        self._pad_id, self._device = pad_id, device
        self._reference: dict[int, torch.Tensor] = {}
        self.lengths = [len(chosen) + len(rejected) for chosen, rejected in pairs]

    def begin(self, model: Any, on_part: Callable[[], None]) -> None:
        """Compute the log-probabilities of all answers under the reference."""
        for part in micro_batches(self._used, self.lengths, self._size):
            on_part()
            self._reference.update(zip(part, self._sums(model, part).unbind(dim=1), strict=True))

    def loss(self, model: Any, examples: Sequence[int], batch: Sequence[int]) -> tuple[torch.Tensor, Mapping[str, float]]:
        """Return the examples' part of the loss.

        Metrics are means over the batch: reward margin, share of pairs ordered correctly.
        """
        settings = self._settings
        policy = self._sums(model, examples)
        ratios = policy - torch.stack([self._reference[example] for example in examples], dim=1)
        tokens = [[answer.supervised for answer in self._pairs[example]] for example in examples]
        lengths = torch.tensor(tokens, device=self._device)
        pairs = Pairs(ratios[0], ratios[1], lengths[:, 0], lengths[:, 1], policy[0])
        chosen_tokens = sum(self._pairs[example][0].supervised for example in batch)
        total = torch.zeros((), device=self._device)
        for term in settings.losses:
            if term.kind == "sft":
                total = total + term.weight * sft_loss(pairs, chosen_tokens)
            else:
                total = total + term.weight * pair_losses(term.kind, pairs, settings.beta).sum() / len(batch)
        margins = settings.beta * (pairs.chosen - pairs.rejected).detach()
        figures = {
            "reward_margin": margins.sum().item() / len(batch),
            "reward_accuracy": (margins > 0).sum().item() / len(batch),
        }
        return total, figures

    def validate(self, model: Any) -> Mapping[str, float]:
        """Return nothing: pairs have no held-out split."""
        return {}

    def _sums(self, model: Any, examples: Sequence[int]) -> torch.Tensor:
        """Return the summed log-probability of the answers, [chosen and rejected, examples]."""
        answers = [self._pairs[example][side] for side in (0, 1) for example in examples]
        values, rows = log_probabilities(model, pad(answers, self._pad_id, self._device))
        return torch.zeros(len(answers), device=self._device).index_add(0, rows, values).view(2, -1)
