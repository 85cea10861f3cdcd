"""Renders the report of one finished step: results, rows, curves, samples, configuration and digests."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from schemas.jobs import StepResult
from schemas.metrics import Metric, paired
from schemas.results import ROWS_LEFT_OUT
from services.chassis.executor.messages import ChildTask
from services.chassis.reports.chart import Points, line_chart
from services.chassis.reports.contents import Contents, Sample
from services.chassis.reports.elements import figure, page, paragraph, scroll, section, table
from services.chassis.reports.texts import brief, safe

_TEXT_LIMIT = 800
_EMPTY = "<em>empty</em>"
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
    """What the process that finished the step used."""

    seconds: float
    peak_bytes: int
    memory: Points
    """Resident gigabytes by seconds since its start."""
    speed: Points
    """Tokens per second by seconds since its start."""


def step_report(task: ChildTask, result: StepResult, found: Contents, used: Resources, finished: datetime) -> str:
    """Return the report as HTML text."""
    attempts = f" in attempt {task.attempt}" if task.attempt > 1 else ""
    return page(
        title=f"{task.step} · {task.job_id} · NeuroWeaver",
        kicker=f"NeuroWeaver · step of job {task.job_id}",
        heading=task.step if task.step == task.kind else f"{task.step} ({task.kind})",
        lede=f"The process that finished this step{attempts} ran for {duration(used.seconds)} and used at most "
        f"{used.peak_bytes / 1e9:.2f} GB of memory.",
        sections=(
            _results(result),
            _rows(result, found.notes),
            _curves(found.curves),
            _resources(used),
            _samples(found.samples),
            _pairs(
                "configuration", "Configuration", ("setting", "value"), _settings("", task.settings.model_dump(mode="json"))
            ),
            _pairs("facts", "Facts", ("fact", "value"), _facts(result)),
            _digests(task, result),
        ),
        footer=f"<p>Finished {finished:%Y-%m-%d %H:%M} UTC.</p>",
    )


def duration(seconds: float) -> str:
    """Return a duration as text for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _results(result: StepResult) -> str:
    metrics = paired(result.metrics)
    if not metrics:
        return ""
    if not any(metric.bounds for metric in metrics):
        cells = [(metric.name, _number(metric.value)) for metric in metrics]
        return section("results", "Results", scroll("Results", table(("metric", "value"), cells)))
    rows = [(metric.name, _number(metric.value), _interval(metric)) for metric in metrics]
    note = "The intervals come from resampled rows. An interval without width does not mean certainty."
    shown = scroll("Results", table(("metric", "value", "95 % confidence interval"), rows))
    return section("results", "Results", paragraph(note, kind="quiet") + shown)


def _interval(metric: Metric) -> str:
    return "{:.4g} to {:.4g}".format(*metric.bounds) if metric.bounds else ""


def _number(value: float | None) -> str:
    if value is None:
        return "not measurable"
    return f"{value:,.0f}" if value.is_integer() and abs(value) >= 1 else f"{value:.4g}"


def _rows(result: StepResult, notes: Sequence[str]) -> str:
    said = [*([result.facts[ROWS_LEFT_OUT]] if ROWS_LEFT_OUT in result.facts else []), *notes]
    items = "".join(f"<li>{safe(note)}</li>" for note in said)
    return section("rows", "Rows left out, and what else was noticed", f"<ul>{items}</ul>") if items else ""


def _curves(curves: Mapping[str, Points]) -> str:
    ordered = [*(name for name in _CURVES if name in curves), *(name for name in curves if name not in _CURVES)]
    charts = [figure(_chart(name, curves[name]), _CURVES.get(name, name)) for name in ordered]
    note = paragraph("By optimiser step: thin as measured, bold as moving mean.", kind="quiet")
    return section("curves", "Curves", f'{note}<div class="charts">{"".join(charts)}</div>') if charts else ""


def _chart(name: str, points: Points) -> str:
    says = f"{_CURVES.get(name, name)}: from {points[0][1]:.4g} to {points[-1][1]:.4g} in {points[-1][0]:g} steps."
    return line_chart(points, says, "optimiser step")


def _resources(used: Resources) -> str:
    series = (("Memory of the process, in GB", used.memory), ("Tokens per second", used.speed))
    charts = [
        figure(line_chart(points, f"{title}: at most {max(y for _, y in points):.4g}.", "seconds"), title)
        for title, points in series
        if len(points) > 1
    ]
    return section("resources", "Memory and speed", f'<div class="charts">{"".join(charts)}</div>') if charts else ""


def _samples(samples: Sequence[Sample]) -> str:
    note = paragraph(f"The first {len(samples)} rows, not selected ones.", kind="quiet")
    return section("samples", "Samples", note + "\n".join(map(_sample, samples))) if samples else ""


def _sample(sample: Sample) -> str:
    texts = "\n".join(
        f'<div class="answer"><h3>{safe(label)}</h3><p class="text">{safe(brief(text, _TEXT_LIMIT)) or _EMPTY}</p></div>'
        for label, text in sample.texts
    )
    return (
        f'<article class="example"><blockquote class="text">{safe(brief(sample.prompt, _TEXT_LIMIT))}</blockquote>'
        f'<div class="answers">{texts}</div></article>'
    )


def _facts(result: StepResult) -> list[tuple[str, str]]:
    return [(name, value) for name, value in result.facts.items() if name != ROWS_LEFT_OUT]


def _digests(task: ChildTask, result: StepResult) -> str:
    rows = [(f"read {name}", ref.sha256) for name, ref in task.inputs.items()]
    rows += [(f"made {name}", ref.sha256) for name, ref in result.outputs.items()]
    return _pairs("digests", "Artifacts, by SHA-256", ("artifact", "digest"), rows)


def _pairs(name: str, title: str, columns: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    cells = [(key, brief(value, _TEXT_LIMIT)) for key, value in rows]
    return section(name, title, table(columns, cells, kind="pairs")) if cells else ""


def _settings(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield all settings by dotted path, without those that are null or empty."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _settings(f"{path}.{name}" if path else str(name), item)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from _settings(f"{path}.{number}", item)
    elif isinstance(value, list):
        if value:
            yield path, ", ".join(map(str, value))
    elif value not in (None, ""):
        yield path, str(value)
