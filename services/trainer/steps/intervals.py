"""Computes confidence intervals of means over rows by the bootstrap: the percentile method, seeded.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Rows are drawn with replacement, each with all its
answers, because answers to one prompt depend on each other. A share of exactly 0 or 1 has an interval without width: no
resample differs, although more rows might.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
_FEW = 64
_DRAWN_AT_ONCE = 200_000
CONFIDENCE = 0.95
Array = npt.NDArray[np.float64]


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
    means = _resampled(np.asarray(values, dtype=np.float64), weights, np.random.default_rng(seed))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(float(low), float(high))


def _resampled(values: Array, weights: Sequence[float] | None, rng: np.random.Generator) -> Array:
    """Return the mean of each resample.

    Of few different values, such as 0 and 1, only how often each is drawn is drawn, which has the same distribution.
    """
    count = len(values)
    if weights is None:
        distinct, occur = np.unique(values, return_counts=True)
        if len(distinct) <= _FEW:
            return np.asarray(rng.multinomial(count, occur / count, size=RESAMPLES) @ distinct / count)
    of_rows = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    weighted = values * of_rows
    means = np.empty(RESAMPLES)
    at_once = max(1, _DRAWN_AT_ONCE // count)
    for first in range(0, RESAMPLES, at_once):
        chunk = means[first : first + at_once]
        drawn = rng.integers(count, size=(len(chunk), count), dtype=np.int32)
        chunk[:] = weighted[drawn].sum(axis=1) / of_rows[drawn].sum(axis=1)
    return means
