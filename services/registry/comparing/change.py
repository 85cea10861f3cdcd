"""Says whether one measurement of a metric is better than another, as far as their confidence intervals allow it."""

import math
from typing import Literal, NamedTuple

from schemas.metrics import Metric

Verdict = Literal["better", "worse", "unclear", "equal"]

_LOWER = frozenset({
    "loss", "perplexity", "latency_ms_per_token", "artifact_bytes", "size_bytes", "parameters", "loss_difference", "rows_left_out",
    "answers_cut", "references_cut",
})  # fmt: skip
_HIGHER = frozenset({
    "exact_match", "valid_json", "good_reply", "number_match", "tokens_per_second", "speed_ratio", "held_out_accuracy",
    "acc", "acc_norm",
})  # fmt: skip
_EXACT = frozenset({"artifact_bytes", "size_bytes", "parameters"})
"""Metrics that are counted and not estimated from a sample, so that any difference is one."""


class Change(NamedTuple):
    """How a metric changed from one version to another."""

    difference: float
    bounds: tuple[float, float] | None
    """95 % confidence interval of the difference; None if a measurement has none, and the metric is not exact."""
    verdict: Verdict


def lower_is_better(name: str) -> bool | None:
    """Return the direction of a metric; None if it is not known."""
    known = name.rsplit("/", 1)[-1].split("_pass_at_")[0]
    if known in _LOWER:
        return True
    return False if known in _HIGHER or known.startswith("judge") else None


def change(before: Metric, after: Metric) -> Change | None:
    """Return the change of a metric; None where one of the two was not measurable.

    The interval of the difference comes from the intervals of both (the method of variance estimates recovery: Zou and Donner 2008,
    Statistics in Medicine 27, 1693). It takes the two for independent. Both were mostly measured on the same rows, where it is too
    wide rather than too narrow.
    """
    if before.value is None or after.value is None:
        return None
    difference = after.value - before.value
    bounds = (difference, difference) if before.name in _EXACT else _bounds(difference, before, after)
    return Change(difference, bounds, _verdict(before.name, difference, bounds))


def _bounds(difference: float, before: Metric, after: Metric) -> tuple[float, float] | None:
    if before.bounds is None or after.bounds is None or before.value is None or after.value is None:
        return None
    down = math.hypot(after.value - after.bounds[0], before.bounds[1] - before.value)
    up = math.hypot(after.bounds[1] - after.value, before.value - before.bounds[0])
    return difference - down, difference + up


def _verdict(name: str, difference: float, bounds: tuple[float, float] | None) -> Verdict:
    lower = lower_is_better(name)
    if bounds == (0.0, 0.0):
        return "equal"
    if lower is None or bounds is None or bounds[0] <= 0 <= bounds[1]:
        return "unclear"
    return "better" if (difference < 0) == lower else "worse"
