"""Shows metrics to people: a number with the bounds of its confidence interval, if it has one."""

from collections.abc import Mapping

_SIDES = ("_low", "_high")


def metric_texts(metrics: Mapping[str, float | None]) -> list[tuple[str, str]]:
    """Return each metric's name and text; bounds are shown with their metric, as in `0.91 (0.84 to 0.96)`."""
    bounds = {name + side for name in metrics for side in _SIDES if all(name + each in metrics for each in _SIDES)}
    return [(name, _text(name, metrics)) for name in metrics if name not in bounds]


def metrics_line(metrics: Mapping[str, float | None]) -> str:
    """Return all metrics on one line."""
    return ", ".join(f"{name} {text}" for name, text in metric_texts(metrics))


def _text(name: str, metrics: Mapping[str, float | None]) -> str:
    low, high = (metrics.get(name + side) for side in _SIDES)
    interval = "" if low is None or high is None else f" ({low:.4g} to {high:.4g})"
    return _number(metrics[name]) + interval


def _number(value: float | None) -> str:
    return "not measurable" if value is None else f"{value:.4g}"
