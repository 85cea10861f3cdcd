"""Computes confidence intervals of means over rows by the bootstrap: the percentile method, seeded.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Rows are drawn with replacement, each with all its
answers, because answers to one prompt depend on each other. A share of exactly 0 or 1 has an interval without width: no
resample differs, although more rows might.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """The bounds between which the mean lies with the probability `CONFIDENCE`."""

    low: float
    high: float


def mean(values: Sequence[float], weights: Sequence[float] | None = None) -> float | None:
    """Return the (weighted) mean; None without values or if it is not finite."""
    if not values:
        return None
    found = float(np.average(np.asarray(values, dtype=np.float64), weights=weights))
    return found if math.isfinite(found) else None


def interval(values: Sequence[float], weights: Sequence[float] | None = None, *, seed: int) -> Interval | None:
    """Return the interval of the (weighted) mean of one value per row; None for fewer than two rows, or if it is not finite."""
    if len(values) < 2 or mean(values, weights) is None:
        return None
    rng = np.random.default_rng(seed)
    of_rows = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    weighted = np.asarray(values, dtype=np.float64) * of_rows
    means = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        drawn = rng.integers(len(values), size=len(values))
        means[number] = weighted[drawn].sum() / of_rows[drawn].sum()
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(float(low), float(high))
