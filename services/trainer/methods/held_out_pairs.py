"""Measures a reward model on pairs that it did not learn: how often, and by how much, it prefers the better answer."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from services.language_models.scoring import scores_of
from services.trainer.engine.method import Figures
from services.trainer.steps.intervals import interval, mean

Ids = Sequence[int]
TokenPair = tuple[Ids, Ids]
"""The tokens of the chat with the better answer, and of that with the worse one."""
_VALIDATED_AT_MOST = 64
"""The most pairs of the validation split that are measured, so that validation takes little of the training time."""


def margins(model: Any, pairs: Sequence[TokenPair], pad_id: int, at_once: int, on_part: Callable[[], None]) -> list[float]:
    """Return by how much the score of the better answer exceeds the other one's, for each pair.

    `on_part` is called before each batch of at most `at_once` pairs; an exception from it ends the work.
    """
    found = [0.0] * len(pairs)
    order = sorted(range(len(pairs)), key=lambda place: max(map(len, pairs[place])))
    for start in range(0, len(order), at_once):
        on_part()
        batch = order[start : start + at_once]
        rows = [pairs[place][side] for side in (0, 1) for place in batch]
        scores = scores_of(model, rows, pad_id)
        for place, better, worse in zip(batch, scores[: len(batch)], scores[len(batch) :], strict=True):
            found[place] = better - worse
    return found


def validated(model: Any, pairs: Sequence[TokenPair], pad_id: int, at_once: int) -> Figures:
    """Return mean loss and accuracy on the first pairs of the validation split; nothing without any."""
    found = margins(model, pairs[:_VALIDATED_AT_MOST], pad_id, at_once, lambda: None)
    if not found:
        return {}
    loss = sum(math.log1p(math.exp(-abs(margin))) + max(-margin, 0.0) for margin in found) / len(found)
    return {"validation_loss": loss, "validation_accuracy": sum(margin > 0 for margin in found) / len(found)}


def measured(found: Sequence[float], seed: int) -> Figures:
    """Return the accuracy on the pairs of the test split with the bounds of its interval, and the mean margin.

    Equal scores count as wrong. One pair has no interval, and no pair has no figures.
    """
    right = [float(margin > 0) for margin in found]
    of_accuracy, of_margin = mean(right), mean(found)
    if of_accuracy is None or of_margin is None:
        return {"held_out_pairs": float(len(found))}
    bounds = interval(right, seed=seed)
    return {
        "held_out_pairs": float(len(found)),
        "held_out_accuracy": of_accuracy,
        **({"held_out_accuracy_low": bounds.low, "held_out_accuracy_high": bounds.high} if bounds else {}),
        "held_out_margin": of_margin,
    }
