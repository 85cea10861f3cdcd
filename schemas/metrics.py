"""Pairs each metric of a result with the bounds of its confidence interval and the rows it was measured on, as results name them."""

import math
from collections.abc import Mapping
from typing import NamedTuple

HARNESS = "harness_"
"""What the names of metrics and facts of tasks of the evaluation harness begin with."""
_SIDES = ("_low", "_high")
_HELD_OUT, _PAIRS = "held_out_", "held_out_pairs"
_ROWS = "_rows"


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


def difference(before: Metric, after: Metric) -> Metric:
    """Return the difference of two measurements, with its 95 % confidence interval where both have one.

    The interval comes from those of both (the method of variance estimates recovery: Zou and Donner 2008, Statistics in Medicine 27,
    1693). It takes the two for independent. Both were mostly measured on the same rows, where it is too wide rather than too narrow.
    """
    if before.value is None or after.value is None:
        return Metric(after.name, None, None)
    value, bounds = after.value - before.value, None
    if before.bounds and after.bounds:
        down = math.hypot(after.value - after.bounds[0], before.bounds[1] - before.value)
        up = math.hypot(after.bounds[1] - after.value, before.value - before.bounds[0])
        bounds = value - down, value + up
    return Metric(after.name, value, bounds)


def _bounds(name: str, metrics: Mapping[str, float | None]) -> tuple[float, float] | None:
    low, high = (metrics.get(name + side) for side in _SIDES)
    return None if low is None or high is None else (low, high)


def rows_measured(name: str, metrics: Mapping[str, float | None]) -> float | None:
    """Return the number of rows that a metric was measured on; None if it is not known.

    A task of the harness counts its own rows, and a reward model its held-out pairs. Other metrics, also a judge's, are of the rows
    of the evaluation.
    """
    if name.startswith(_HELD_OUT):
        return metrics.get(_PAIRS)
    if task := harness_task(name, metrics):
        return metrics.get(task + _ROWS)
    return None if name.startswith(HARNESS) else metrics.get("rows")


def harness_task(name: str, metrics: Mapping[str, float | None]) -> str | None:
    """Return the name of the fact about the task that a metric belongs to; None if it is of no task."""
    if not name.startswith(HARNESS):
        return None
    tasks = (other.removesuffix(_ROWS) for other in metrics if other.startswith(HARNESS) and other.endswith(_ROWS))
    return max((task for task in tasks if name.startswith(f"{task}_")), key=len, default=None)
