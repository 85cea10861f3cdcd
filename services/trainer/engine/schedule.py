"""Computes learning rate and order of examples from settings and step alone, so that checkpoints need not store them."""

import math
import random
from collections.abc import Sequence
from functools import lru_cache

from schemas.recipes.optimiser import OptimiserSettings


def steps_of(settings: OptimiserSettings, examples: int, group: int = 1) -> int:
    """Return the total number of optimiser steps; each example is in a batch `group` times."""
    return settings.steps or max(1, math.ceil(settings.epochs * examples * group / settings.batch_size))


def learning_rate(settings: OptimiserSettings, step: int, steps: int) -> float:
    """Return the rate of optimiser step `step`, counted from 0: a linear warm-up to the peak, then the schedule's decay.

    The schedule would reach 0 one step after the last, so every step has a positive rate.
    """
    warmup = math.ceil(settings.warmup_ratio * steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    match settings.schedule:
        case "cosine":
            return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        case "linear":
            return settings.learning_rate * (1 - done)
        case "constant":
            return settings.learning_rate


def batch_of(step: int, batch_size: int, examples: int, seed: int) -> list[int]:
    """Return the examples of step `step`, counted from 0: every example once per epoch, each epoch shuffled anew by the
    seed.

    A batch may span two epochs; no batch is left out or shortened.
    """
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [_shuffled(examples, seed, position // examples)[position % examples] for position in positions]


@lru_cache(maxsize=2)
def _shuffled(examples: int, seed: int, number: int) -> Sequence[int]:
    order = list(range(examples))
    random.Random(f"{seed}/{number}").shuffle(order)  # noqa: S311  # reproducible on purpose
    return order


def micro_batch_size(settings: OptimiserSettings, memory_failures: int, processes: int = 1) -> int:
    """Examples per forward pass of one process: halved for each attempt that ran out of memory, and rounded down to a divisor
    of its share of the batch.

    All parts of a batch are equal in size, so the mean over parts is the mean over the batch, which does not change.
    """
    share = settings.batch_size // processes
    most = max(1, min(settings.micro_batch_size or share, share) >> memory_failures)
    return next(size for size in range(most, 0, -1) if share % size == 0)


def used_examples(settings: OptimiserSettings, lengths: Sequence[int], seed: int, group: int = 1) -> list[int]:
    """Return the examples that any step uses, the longest first; each is in a batch `group` times."""
    steps = range(steps_of(settings, len(lengths), group))
    used = {example for step in steps for example in batch_of(step, settings.batch_size // group, len(lengths), seed)}
    return by_length(sorted(used), lengths)


def tokens_read(settings: OptimiserSettings, lengths: Sequence[int], seed: int, group: int = 1) -> int:
    """Return the tokens of the examples that all steps read together; an example counts each time that it is read."""
    read = steps_of(settings, len(lengths), group) * (settings.batch_size // group)
    epochs, rest = divmod(read, len(lengths))
    last = _shuffled(len(lengths), seed, epochs)[:rest] if rest else ()
    return group * (epochs * sum(lengths) + sum(lengths[example] for example in last))


def times_used(settings: OptimiserSettings, examples: int, seed: int, group: int = 1) -> list[int]:
    """Return how often each example is in a batch of any step; one that is in a batch `group` times counts once."""
    epochs, rest = divmod(steps_of(settings, examples, group) * (settings.batch_size // group), examples)
    times = [epochs] * examples
    for example in _shuffled(examples, seed, epochs)[:rest] if rest else ():
        times[example] += 1
    return times


def by_length(examples: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """Order the examples by length, the longest first: consecutive ones share a forward pass, padded to its longest."""
    return sorted(examples, key=lambda example: -lengths[example])
