"""Computes the losses of direct preference optimisation, one line each, as TRL defines them; a test compares the two.

A reward is beta times the log-ratio of an answer's probability under the policy to that under the reference. `margin` below
is the chosen answer's log-ratio minus the rejected one's, before multiplication by beta.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

ROBUST_SMOOTHING = 0.1
"""Expected share of pairs with a wrong label, for `robust`; with 0 it equals `sigmoid`."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Log-ratios of policy to reference and lengths in tokens, [pairs]; log-probability of the chosen answers, [pairs]."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor
    chosen_log_probability: torch.Tensor


def pair_losses(kind: str, pairs: Pairs, beta: float) -> torch.Tensor:
    """Return the loss of each pair, [pairs]. For `sft`, whose mean is over tokens, see `sft_loss`."""
    margin = pairs.chosen - pairs.rejected
    match kind:
        case "sigmoid":  # Rafailov et al. 2023
            return -logsigmoid(beta * margin)
        case "hinge":  # Zhao et al. 2023, SLiC
            return torch.relu(1 - beta * margin)
        case "ipo":  # Azar et al. 2023, eq. 17, with means over tokens as its authors use
            means = pairs.chosen / pairs.chosen_tokens - pairs.rejected / pairs.rejected_tokens
            return (means - 1 / (2 * beta)) ** 2
        case "robust":  # Chowdhury et al. 2024
            kept, flipped = -logsigmoid(beta * margin), -logsigmoid(-beta * margin)
            return ((1 - ROBUST_SMOOTHING) * kept - ROBUST_SMOOTHING * flipped) / (1 - 2 * ROBUST_SMOOTHING)
    raise ValueError(f"{kind} is not a loss of pairs")


def sft_loss(pairs: Pairs, chosen_tokens_of_batch: int) -> torch.Tensor:
    """Return the contribution of these pairs to the mean cross-entropy of a batch's chosen answers, which keeps them
    likely."""
    return -pairs.chosen_log_probability.sum() / chosen_tokens_of_batch
