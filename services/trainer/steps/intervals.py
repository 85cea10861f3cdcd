"""Computes confidence intervals of means over rows by the bootstrap: the percentile method, seeded.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Rows are drawn with replacement, each with all its
answers, because answers to one prompt depend on each other. A share of exactly 0 or 1 has an interval without width: no
resample differs, although more rows might.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
RESAMPLES_OF_ANY = 200
"""Of a number that is computed anew from the rows of each resample, which may take seconds."""
_FEW = 64
_DRAWN_AT_ONCE = 200_000
CONFIDENCE = 0.95
Array = npt.NDArray[np.float64]
T = TypeVar("T")


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
    return _percentiles(means)


def interval_of(aggregate: Callable[[Sequence[T]], float], rows: Sequence[T], *, seed: int) -> Interval | None:
    """Return the interval of any number that is computed from rows; None for fewer than two rows, or if it is not finite."""
    if len(rows) < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(rows), size=len(rows)) for _ in range(RESAMPLES_OF_ANY))
    return _percentiles(np.array([float(aggregate([rows[number] for number in numbers])) for numbers in drawn]))


def _percentiles(values: Array) -> Interval | None:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, (tail, 1 - tail))
    return Interval(float(low), float(high)) if math.isfinite(low) and math.isfinite(high) else None


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
