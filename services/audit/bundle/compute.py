"""The compute of a modification in floating-point operations, from numbers that the training steps recorded. Pure.

A forward pass takes about 2 operations for each weight and token, the gradients of activations 2 more, and those of the trained
weights 2 for each of these (Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1): 6·N·D where all weights are
trained. Passes of reference models and of judges, sampled answers and activations that are computed again are not counted.
"""

from collections.abc import Iterator
from typing import Any

from services.audit.bundle.cited import NOT_RECORDED, Cited
from services.audit.bundle.sources import VersionSources

RULE = "(4·N + 2·n)·D: N weights of the base model, n trained weights, D tokens read (Kaplan et al. 2020, section 2.1)"
_NUMBERS = ("base_parameters", "trainable_parameters", "tokens_read")
_NAMES = ("weights of the base model, N", "trained weights, n", "tokens read, D")


def compute_of(known: VersionSources) -> Iterator[tuple[str, Cited]]:
    """Yield the numbers of each training, their operations, and the sum."""
    each = []
    for step in known.of_kind("train"):
        numbers = [known.result(step, "metrics", name) for name in _NUMBERS]
        yield from ((f"{step}: {name}", number) for name, number in zip(_NAMES, numbers, strict=True))
        each.append(_operations(numbers))
        yield f"{step}: FLOPs", each[-1]
    yield "FLOPs of all trainings", _sum(each)
    yield "FLOPs of the base model's training", NOT_RECORDED
    yield "ratio to the base model's training", NOT_RECORDED


def _operations(numbers: list[Cited]) -> Cited:
    origins = tuple(origin for number in numbers for origin in number.origins)
    if not all(_whole(number.value) for number in numbers):
        return Cited(None, origins, RULE)
    weights, trained, tokens = (int(number.value) for number in numbers)
    return Cited((4 * weights + 2 * trained) * tokens, origins, RULE)


def _whole(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53 and value == int(value)


def _sum(each: list[Cited]) -> Cited:
    known = [one.value for one in each]
    total = sum(known) if known and None not in known else None
    return Cited(total, tuple(origin for one in each for origin in one.origins), "the sum over all training steps")
