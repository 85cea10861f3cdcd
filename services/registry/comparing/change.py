"""Says whether one measurement of a metric is better than another, as far as their confidence intervals allow it."""

from typing import Literal, NamedTuple

from schemas.metrics import Metric, difference

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

    The interval of the difference comes from the intervals of both, as `schemas.metrics.difference` says.
    """
    found = difference(before, after)
    if found.value is None:
        return None
    bounds = (found.value, found.value) if before.name in _EXACT else found.bounds
    return Change(found.value, bounds, _verdict(before.name, found.value, bounds))


def _verdict(name: str, difference: float, bounds: tuple[float, float] | None) -> Verdict:
    lower = lower_is_better(name)
    if bounds == (0.0, 0.0):
        return "equal"
    if lower is None or bounds is None or bounds[0] <= 0 <= bounds[1]:
        return "unclear"
    return "better" if (difference < 0) == lower else "worse"
