"""Pairs each metric of a result with the bounds of its confidence interval, as results name them."""

from collections.abc import Mapping
from typing import NamedTuple

_SIDES = ("_low", "_high")


class Metric(NamedTuple):
    """One metric; None where it is not measurable."""

    name: str
    value: float | None
    bounds: tuple[float, float] | None
    """Its 95 % confidence interval, from `<name>_low` to `<name>_high`."""


def paired(metrics: Mapping[str, float | None]) -> list[Metric]:
    """Return each metric with its bounds; bounds are no metrics of their own."""
    with_bounds = [name for name in metrics if all(name + side in metrics for side in _SIDES)]
    bounds = {name + side for name in with_bounds for side in _SIDES}
    return [Metric(name, value, _bounds(name, metrics)) for name, value in metrics.items() if name not in bounds]


def _bounds(name: str, metrics: Mapping[str, float | None]) -> tuple[float, float] | None:
    low, high = (metrics.get(name + side) for side in _SIDES)
    return None if low is None or high is None else (low, high)
