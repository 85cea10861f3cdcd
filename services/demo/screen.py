"""Shows the progress of the demo's job: bars that are updated in place on a terminal, occasional lines elsewhere."""

from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from schemas.progress import StepProgressed
from schemas.steps import EXECUTOR_OF
from services.demo.observed_job import ObservedJob, ObservedStep, StepState
from services.demo.report import COLUMNS, Report, duration, table

_SIGNS: dict[StepState, tuple[str, str]] = {
    "waiting": ("·", "dim"),
    "queued": ("○", "dim"),
    "running": ("●", "cyan"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "cancelled": ("–", "yellow"),
}
_BAR = 16
_QUIET_SECONDS = 20.0
"""Interval of the lines about a running step if there is no terminal."""


class DemoScreen(Protocol):
    """Displays the demo's progress."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, job: ObservedJob, now: datetime) -> None:
        """Show the job's present state."""


def screen(console: Console) -> DemoScreen:
    """Return live bars for a terminal, plain lines for anything else."""
    return (
        LiveDemoScreen(console)
        if console.is_terminal
        else PlainDemoScreen(lambda text: console.print(Text(text), soft_wrap=True))
    )


class LiveDemoScreen:
    """One table that is redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, job: ObservedJob, now: datetime) -> None:
        self._live.update(picture(job, now))


class PlainDemoScreen:
    """Prints a line when a step changes its state, and at intervals while one runs."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._shown: dict[str, tuple[StepState, int]] = {}
        self._last: datetime | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def show(self, job: ObservedJob, now: datetime) -> None:
        steps = job.steps.values()
        shown = [step for step in steps if step.state not in ("waiting", "queued") and self._is_news(step)]
        if not shown and (self._last is None or (now - self._last).total_seconds() >= _QUIET_SECONDS):
            running = [step for step in steps if step.state == "running"]
            shown = running or [step for step in steps if step.state == "queued"]
        for step in shown:
            self._write(line(step, now))
            self._shown[step.name], self._last = (step.state, step.attempt), now

    def _is_news(self, step: ObservedStep) -> bool:
        return self._shown.get(step.name) != (step.state, step.attempt)


def picture(job: ObservedJob, now: datetime) -> RenderableType:
    """Return all steps, one line each."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(min_width=1)
    grid.add_column(no_wrap=True, min_width=13)
    grid.add_column(min_width=_BAR)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    grid.add_column(no_wrap=True, justify="right", min_width=5)
    for step in job.steps.values():
        sign, style = _SIGNS[step.state]
        name = Text(step.name, style="" if step.state in ("running", "done") else style)
        grid.add_row(Text(sign, style=style), name, _bar(step), Text(detail(step)), Text(_time(step, now), style="dim"))
    if not job.steps:
        return Text("● JobRequested is on neuroweaver.requests; waiting for the orchestrator's answer")
    passed = f"{duration((now - job.requested).total_seconds())} since the request" if job.requested else ""
    events = f"{sum(job.counts.values())} events on {len(job.counts)} topics"
    return Group(grid, Text(f"{passed}, {events}".lstrip(", "), style="dim"))


def line(step: ObservedStep, now: datetime) -> str:
    """One step on one line of plain text."""
    sign, _ = _SIGNS[step.state]
    return "  ".join(part for part in (sign, f"{step.name:<14}", step.state, _time(step, now), detail(step)) if part)


def detail(step: ObservedStep) -> str:
    """The details that are shown about a step in its state."""
    parts = [f"attempt {step.attempt}"] if step.attempt > 1 else []
    if step.state == "queued":
        parts.append(f"waiting for the {EXECUTOR_OF.get(step.kind, 'executing')} service")
    elif step.state == "running" and step.progress:
        parts += _progress(step.progress)
    elif step.state == "done" and step.result:
        parts += [
            f"{_METRICS[name]} {value:.3g}"
            for name, value in step.result.metrics.items()
            if name in _METRICS and value is not None
        ]
    elif step.fault:
        parts.append(step.fault.message)
    return " · ".join(parts)


_METRICS = {
    "loss": "loss",
    "valid_json": "valid JSON",
    "exact_match": "exact",
    "good_reply": "good",
    "judge": "judge",
    "pairs": "pairs",
}
"""Metrics that are shown on a line, with their labels."""


def _progress(progress: StepProgressed) -> list[str]:
    parts = [f"{progress.done}/{progress.of} {progress.unit}"]
    if progress.eta_seconds is not None:
        parts.append(f"{_clock(progress.eta_seconds)} left")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.tokens_per_second is not None:
        parts.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    return parts


def _bar(step: ObservedStep) -> RenderableType:
    match step.state, step.progress:
        case "running", StepProgressed(done=done, of=of) if of:
            return ProgressBar(total=of, completed=min(done, of), width=_BAR)
        case "running", _:
            return ProgressBar(total=None, width=_BAR)
        case "done", _:
            return ProgressBar(total=1, completed=1, width=_BAR)
    return Text("")


def _time(step: ObservedStep, now: datetime) -> str:
    if step.started is None:
        return ""
    return _clock(((step.ended or now) - step.started).total_seconds())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{rest:02d}"


def closing_table(found: Report) -> Table:
    """Return the table that compares base, after SFT and after RLAIF on the held-out rows."""
    shown = Table(title=f"{found.rows} held-out requests", title_justify="left", title_style="bold")
    for column in COLUMNS:
        shown.add_column(column, justify="left" if column == COLUMNS[0] else "right")
    for cells in table(found):
        shown.add_row(*cells)
    return shown
