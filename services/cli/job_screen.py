"""A person sees what a job does: bars that stay in place on a terminal, a line per change elsewhere, JSON for programs."""

import sys
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markup import escape

from services.cli.edge import StreamEvent
from services.cli.printable import printable
from services.cli.step_lines import SIGNS, counted, numbers, screen_lines
from services.orchestrator.views import JobView, StepProgress, StepStatus


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
    """A screen with a bar for each step and the numbers of those that run, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(self, console=console, auto_refresh=False)
        self._job: JobView | None = None
        self._progress: dict[str, StepProgress] = {}

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield what is shown now, as wide as the console is now."""
        yield from screen_lines(self._job.steps if self._job else (), self._progress, options.max_width)

    def job(self, job: JobView) -> None:
        """Show signs, retries and the time that completed steps took."""
        self._job = job
        self._live.refresh()

    def step(self, step: StepProgress) -> None:
        """Show the numbers of the latest attempt."""
        self._progress[step.step] = step
        self._live.refresh()


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
            self._write(f"  {step.step}: {', '.join((counted(step), *numbers(step)))}")

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
