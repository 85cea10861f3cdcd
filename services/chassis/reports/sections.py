"""Builds the sections that reports of steps share: curves, memory and speed, the configuration, and pairs of names and values."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from services.chassis.reports.chart import Points, line_chart
from services.chassis.reports.elements import figure, paragraph, section, table
from services.chassis.reports.texts import brief

TEXT_LIMIT = 800
_CURVES = {
    "loss": "Training loss",
    "validation_loss": "Validation loss",
    "validation_accuracy": "Share of validation pairs whose better answer has the higher score",
    "learning_rate": "Learning rate",
    "reward": "Mean reward of sampled answers",
    "reward_deviation": "Standard deviation of the rewards",
    "groups_without_deviation": "Share of prompts whose answers all have one reward",
    "rewards_failed": "Share of answers without a reward",
    "answer_tokens": "Mean tokens of sampled answers",
    "answers_cut": "Share of sampled answers that the limit cut",
    "reward_accuracy": "Share of pairs whose better answer has the higher reward",
    "reward_margin": "By how much the reward of the better answer is higher",
    "reward_mean": "Mean score",
    "entropy": "Entropy of the model's next token, in nats",
    "reference_distance": "Distance from the reference",
    "gradient_norm": "Norm of the gradient before clipping",
}
"""Titles of curves, in the order in which they are shown; others follow under their names."""


@dataclass(frozen=True)
class Resources:
    """What the process of the step used."""

    seconds: float
    peak_bytes: int
    memory: Points
    """Resident gigabytes by seconds since its start."""
    speed: Points
    """Tokens per second by seconds since its start."""


def duration(seconds: float) -> str:
    """Return a duration as text for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def curves_section(curves: Mapping[str, Points]) -> str:
    """Return charts of values by optimiser step."""
    ordered = [*(name for name in _CURVES if name in curves), *(name for name in curves if name not in _CURVES)]
    charts = [figure(_chart(name, curves[name]), _title(name)) for name in ordered]
    note = paragraph("By optimiser step: thin as measured, bold as moving mean.", kind="quiet")
    return section("curves", "Curves", f'{note}<div class="charts">{"".join(charts)}</div>') if charts else ""


def _title(name: str) -> str:
    reward = name.removeprefix("reward_")
    return _CURVES.get(name) or (name if reward == name else f"Mean of the reward {reward}")


def _chart(name: str, points: Points) -> str:
    says = f"{_title(name)}: from {points[0][1]:.4g} to {points[-1][1]:.4g} in {points[-1][0]:g} steps."
    return line_chart(points, says, "optimiser step")


def resources_section(used: Resources) -> str:
    """Return charts of memory and speed; empty without two measurements."""
    series = (("Memory of the process, in GB", used.memory), ("Tokens per second", used.speed))
    charts = [
        figure(line_chart(points, f"{title}: at most {max(y for _, y in points):.4g}.", "seconds"), title)
        for title, points in series
        if len(points) > 1
    ]
    return section("resources", "Memory and speed", f'<div class="charts">{"".join(charts)}</div>') if charts else ""


def pairs_section(name: str, title: str, columns: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    """Return a table of names and values; empty without any."""
    cells = [(key, brief(value, TEXT_LIMIT)) for key, value in rows]
    return section(name, title, table(columns, cells, kind="pairs")) if cells else ""


def setting_rows(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield all settings by dotted path, without those that are null or empty."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from setting_rows(f"{path}.{name}" if path else str(name), item)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from setting_rows(f"{path}.{number}", item)
    elif isinstance(value, list):
        if value:
            yield path, ", ".join(map(str, value))
    elif value not in (None, ""):
        yield path, str(value)
