"""Shows metrics to people: a number with the bounds of its confidence interval, if it has one."""

from collections.abc import Mapping

from schemas.metrics import Metric, paired


def metric_texts(metrics: Mapping[str, float | None]) -> list[tuple[str, str]]:
    """Return each metric's name and text; bounds are shown with their metric, as in `0.91 (0.84 to 0.96)`."""
    return [(metric.name, _text(metric)) for metric in paired(metrics)]


def metrics_line(metrics: Mapping[str, float | None]) -> str:
    """Return all metrics on one line."""
    return ", ".join(f"{name} {text}" for name, text in metric_texts(metrics))


def _text(metric: Metric) -> str:
    if metric.value is None:
        return "not measurable"
    return f"{metric.value:.4g}" + (" ({:.4g} to {:.4g})".format(*metric.bounds) if metric.bounds else "")
