"""Renders the report of one finished step: results, rows, curves, samples, configuration and digests."""

from collections.abc import Sequence
from datetime import datetime

from schemas.jobs import StepResult
from schemas.metrics import paired
from schemas.results import ROWS_LEFT_OUT
from services.chassis.executor.messages import ChildTask
from services.chassis.reports.contents import Contents, Sample
from services.chassis.reports.elements import page, paragraph, scroll, section, table
from services.chassis.reports.metric_text import shown_bounds, shown_number
from services.chassis.reports.sections import (
    TEXT_LIMIT,
    Resources,
    curves_section,
    duration,
    pairs_section,
    resources_section,
    setting_rows,
)
from services.chassis.reports.texts import brief, safe

_EMPTY = "<em>empty</em>"


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
            curves_section(found.curves),
            resources_section(used),
            _samples(found.samples),
            pairs_section(
                "configuration",
                "Configuration",
                ("setting", "value"),
                setting_rows("", task.settings.model_dump(mode="json")),
            ),
            pairs_section("facts", "Facts", ("fact", "value"), _facts(result)),
            _digests(task, result),
        ),
        footer=f"<p>Finished {finished:%Y-%m-%d %H:%M} UTC.</p>",
    )


def _results(result: StepResult) -> str:
    metrics = paired(result.metrics)
    if not metrics:
        return ""
    if not any(metric.bounds for metric in metrics):
        cells = [(metric.name, shown_number(metric)) for metric in metrics]
        return section("results", "Results", scroll("Results", table(("metric", "value"), cells)))
    rows = [(metric.name, shown_number(metric), shown_bounds(metric)) for metric in metrics]
    note = "The intervals come from resampled rows. An interval without width does not mean certainty."
    shown = scroll("Results", table(("metric", "value", "95 % confidence interval"), rows))
    return section("results", "Results", paragraph(note, kind="quiet") + shown)


def _rows(result: StepResult, notes: Sequence[str]) -> str:
    said = [*([result.facts[ROWS_LEFT_OUT]] if ROWS_LEFT_OUT in result.facts else []), *notes]
    items = "".join(f"<li>{safe(note)}</li>" for note in said)
    return section("rows", "Rows left out, and what else was noticed", f"<ul>{items}</ul>") if items else ""


def _samples(samples: Sequence[Sample]) -> str:
    note = paragraph("First rows, not selected ones.", kind="quiet")
    return section("samples", "Samples", note + "\n".join(map(_sample, samples))) if samples else ""


def _sample(sample: Sample) -> str:
    texts = "\n".join(
        f'<div class="answer"><h3>{safe(label)}</h3><p class="text">{safe(brief(text, TEXT_LIMIT)) or _EMPTY}</p></div>'
        for label, text in sample.texts
    )
    return (
        f'<article class="example"><blockquote class="text">{safe(brief(sample.prompt, TEXT_LIMIT))}</blockquote>'
        f'<div class="answers">{texts}</div></article>'
    )


def _facts(result: StepResult) -> list[tuple[str, str]]:
    return [(name, value) for name, value in result.facts.items() if name != ROWS_LEFT_OUT]


def _digests(task: ChildTask, result: StepResult) -> str:
    rows = [(f"read {name}", ref.sha256) for name, ref in task.inputs.items()]
    rows += [(f"made {name}", ref.sha256) for name, ref in result.outputs.items()]
    return pairs_section("digests", "Artifacts, by SHA-256", ("artifact", "digest"), rows)
