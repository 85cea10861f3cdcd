"""Says in lines of text how far a step is: a bar with its count, then what is known of a running one, as wide as the screen."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from schemas.progress import DeviceReading
from services.cli.printable import printable
from services.cli.sparkline import sparkline
from services.orchestrator.views import StepProgress, StepStatus, StepView

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
_BAR, _NARROW_BAR = 24, 12
_WIDE = 80
"""Screens with at least this many columns get the wider bar."""
_SPARKS, _NARROW_SPARKS = 40, 20


def screen_lines(steps: Sequence[StepView], progress: dict[str, StepProgress], width: int) -> Iterable[Text]:
    """Yield the lines of all steps; none is wider than `width`."""
    longest = max((cell_len(printable(step.name)) for step in steps), default=0)
    for step in steps:
        yield from step_lines(step, progress.get(step.name), width, min(longest, width // 3))


def step_lines(step: StepView, progress: StepProgress | None, width: int, name_width: int) -> Iterable[Text]:
    """Yield the step's bar, and below it the numbers of a running step."""
    sign, style = SIGNS[step.status]
    running = step.status in ("running", "stopping")
    latest = step.attempts[-1].attempt if step.attempts else 0
    current = progress if progress and progress.attempt == latest else None
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(sign, style).append(" ").append(_cell(step.name, name_width)).append(" ")
    bar = _BAR if width >= _WIDE else _NARROW_BAR
    done = 1.0 if step.status == "completed" else _share(current)
    filled = round(done * bar)
    line.append("━" * filled, "green" if step.status == "completed" else style).append("━" * (bar - filled), "bright_black")
    line.append(" ").append(", ".join(_beside_the_bar(step, current)), "" if running else "dim")
    line.truncate(width, overflow="ellipsis")
    yield line
    if running and current:
        sparks = _SPARKS if width >= _WIDE else _NARROW_SPARKS
        yield from _flowing(numbers(current, sparks=sparks), width)


def counted(progress: StepProgress) -> str:
    """Return how much of the work is done; empty if nothing was reported."""
    return f"{progress.done}/{progress.of} {progress.unit}" if progress.done is not None else ""


def numbers(progress: StepProgress, *, sparks: int = 0) -> list[str]:
    """Return what is known of a running step, in parts: loss, gradient, speed, memory, and the time left.

    `sparks`: the most characters of the loss's curve; 0 for none.
    """
    parts = []
    if progress.loss is not None:
        curve = sparkline(progress.losses, sparks)
        parts.append(f"loss {progress.loss:.4g}" + (f" {curve}" if curve else ""))
    if progress.gradient_norm is not None:
        parts.append(f"gradient {progress.gradient_norm:.3g}")
    if progress.tokens_per_second is not None:
        parts.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    if progress.memory_bytes is not None:
        parts.append(f"{progress.memory_bytes / 1e9:.1f} GB")
    parts += map(_device, progress.devices)
    if progress.eta_seconds is not None:
        parts.append(f"{_clock(progress.eta_seconds)} left")
    return parts


def _device(found: DeviceReading) -> str:
    share = "" if found.utilisation is None else f" {found.utilisation:.0%}"
    heat = "" if found.celsius is None else f" {found.celsius:.0f} °C"
    return f"{found.device}{share}{heat}"


def _beside_the_bar(step: StepView, progress: StepProgress | None) -> Iterable[str]:
    if progress and step.status != "completed" and (count := counted(progress)):
        yield count
    last = step.attempts[-1] if step.attempts else None
    if step.status == "completed" and last and last.started_at and last.ended_at:
        yield _clock((last.ended_at - last.started_at).total_seconds())
    if len(step.attempts) > 1:
        yield f"attempt {len(step.attempts)}"
    if step.status not in ("running", "completed"):
        yield step.status


def _flowing(parts: Sequence[str], width: int) -> Iterable[Text]:
    """Yield lines of whole parts; a part that is wider than the screen is cut."""
    indent, between = "  ", " · "
    line = ""
    for part in parts:
        if line and cell_len(indent + line + between + part) > width:
            yield Text(indent + line, no_wrap=True)
            line = ""
        line = line + between + part if line else set_cell_size(part, min(cell_len(part), width - len(indent)))
    if line:
        yield Text(indent + line, no_wrap=True)


def _cell(name: str, width: int) -> str:
    shown = printable(name)
    return set_cell_size(shown, width) if cell_len(shown) <= width else set_cell_size(shown, max(0, width - 1)) + "…"


def _share(progress: StepProgress | None) -> float:
    return min(1.0, (progress.done or 0) / progress.of) if progress and progress.of else 0.0


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
