"""A person sees what a job does: bars that stay in place on a terminal, a line per change elsewhere, JSON for programs."""

import sys
from datetime import timedelta
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from services.cli.edge import StreamEvent
from services.cli.printable import printable
from services.orchestrator.views import JobView, StepProgress, StepStatus

SIGNS: dict[StepStatus, tuple[str, str]] = {
    "waiting": ("·", "dim"),
    "queued": ("○", "dim"),
    "running": ("●", "cyan"),
    "stopping": ("◌", "yellow"),
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "cancelled": ("–", "yellow"),
    "skipped": ("–", "dim"),
}


class Screen(Protocol):
    """The output of a watched job."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def job(self, job: JobView) -> None:
        """The job changed."""

    def step(self, step: StepProgress) -> None:
        """A step reported its progress."""


class LiveScreen:
    """A screen with one bar per step, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.fields[sign]}"),
            TextColumn("{task.description}", markup=False),
            BarColumn(24),
            TextColumn("{task.fields[numbers]}", markup=False),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._status: dict[str, StepStatus] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()

    def job(self, job: JobView) -> None:
        """Show signs and retries; a completed step's bar is full."""
        for step in job.steps:
            sign, style = SIGNS[step.status]
            if step.name not in self._tasks:
                self._tasks[step.name] = self._bars.add_task(step.name, total=1, start=False, sign="", numbers="")
            task = self._tasks[step.name]
            self._bars.update(task, sign=f"[{style}]{sign}[/]")
            if step.status == "completed":
                total = self._bars.tasks[task].total or 1
                self._bars.update(task, completed=total)
            elif self._status.get(step.name) != step.status and len(step.attempts) > 1:
                self._bars.update(task, numbers=f"attempt {len(step.attempts)}, {step.status}")
            self._status[step.name] = step.status

    def step(self, step: StepProgress) -> None:
        """Show the numbers of the latest attempt."""
        task = self._tasks.get(step.step)
        if task is not None and self._status.get(step.step) != "completed":
            self._bars.update(task, total=step.of or 1, completed=step.done or 0, numbers=numbers(step))


class PlainScreen:
    """A screen that prints a line when a step changes its status, and one for each tenth of its work."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, tuple[StepStatus, int]] = {}
        self._tenths: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def job(self, job: JobView) -> None:
        """Print what changed since the last call."""
        for step in job.steps:
            now = (step.status, len(step.attempts))
            if self._shown.get(step.name, ("waiting", 0)) != now:
                retry = f" (attempt {len(step.attempts)})" if len(step.attempts) > 1 else ""
                self._write(f"{SIGNS[step.status][0]} {step.name}: {step.status}{retry}")
            self._shown[step.name] = now

    def step(self, step: StepProgress) -> None:
        """Print progress once for each tenth."""
        if self._shown.get(step.step, ("waiting", 0))[0] == "completed":
            return
        tenth = 10 * (step.done or 0) // (step.of or 1)
        if self._tenths.get(f"{step.step}/{step.attempt}", 0) != tenth:
            self._tenths[f"{step.step}/{step.attempt}"] = tenth
            self._write(f"  {step.step}: {numbers(step)}")

    def _write(self, line: str) -> None:
        self._console.print(escape(printable(line)), highlight=False, soft_wrap=True)


class JsonScreen:
    """A screen that prints one JSON object on each line."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def job(self, job: JobView) -> None:
        """Print the whole job."""
        self._write(f'{{"event":"job","data":{job.model_dump_json()}}}')

    def step(self, step: StepProgress) -> None:
        """Print one step's progress."""
        self._write(f'{{"event":"progress","data":{step.model_dump_json()}}}')

    def _write(self, line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def screen(console: Console, json: bool) -> Screen:
    """Return the screen that suits the output: JSON, a terminal or plain lines."""
    if json:
        return JsonScreen()
    return LiveScreen(console) if console.is_terminal else PlainScreen(console)


def show(shown: Screen, event: StreamEvent) -> JobView | None:
    """Show an event of the stream and return the job if the event contains it."""
    if event.name == "job":
        job = JobView.model_validate(event.data)
        shown.job(job)
        return job
    if event.name == "progress":
        shown.step(StepProgress.model_validate(event.data))
    return None


def numbers(step: StepProgress) -> str:
    """Yield work done, loss, speed and remaining time."""
    parts = [f"{step.done}/{step.of} {step.unit}"] if step.done is not None else []
    if step.loss is not None:
        parts.append(f"loss {step.loss:.4g}")
    if step.tokens_per_second is not None:
        parts.append(f"{step.tokens_per_second:.0f} tokens/s")
    if step.eta_seconds is not None:
        parts.append(f"{timedelta(seconds=round(step.eta_seconds))} left")
    return ", ".join(parts)
