"""Shows metrics to people: a number with the bounds of its confidence interval, if it has one."""

from collections.abc import Mapping

from schemas.metrics import Metric, paired

_MIB = 2**20
_EXACT = 2**53
"""Below it a whole number is a count and is shown with all its digits."""


def metric_texts(metrics: Mapping[str, float | None]) -> list[tuple[str, str]]:
    """Return each metric's name and text; bounds are shown with their metric, as in `0.91 (0.84 to 0.96)`."""
    return [(metric.name, metric_text(metric)) for metric in paired(metrics)]


def metrics_line(metrics: Mapping[str, float | None]) -> str:
    """Return all metrics on one line."""
    return ", ".join(f"{name} {text}" for name, text in metric_texts(metrics))


def shown_number(metric: Metric) -> str:
    """Return a metric's value without its bounds: sizes in MiB, counts with all their digits, other numbers with four."""
    if metric.value is None:
        return "not measurable"
    if metric.name.endswith("_bytes"):
        return f"{metric.value / _MIB:.0f} MiB"
    whole = metric.value.is_integer() and abs(metric.value) < _EXACT
    return f"{metric.value:.0f}" if whole else f"{metric.value:.4g}"


def shown_bounds(metric: Metric) -> str:
    """Return the bounds of a metric, as in `0.84 to 0.96`; nothing if it has none."""
    return "{:.4g} to {:.4g}".format(*metric.bounds) if metric.bounds else ""


def metric_text(metric: Metric) -> str:
    """Return the value of a metric with its bounds, as in `0.91 (0.84 to 0.96)`."""
    return shown_number(metric) + (f" ({shown_bounds(metric)})" if metric.bounds else "")
