"""Draws a loss curve as inline SVG, so that the page needs no library and no network."""

import math
from collections.abc import Sequence
from html import escape

from services.demo.findings import Curve

_WIDTH, _HEIGHT = 420, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 8, 10, 28


def loss_chart(curve: Curve) -> str:
    """Return an SVG element with the curve and its moving mean; the y axis starts at 0.

    `curve` must have at least one point.
    """
    steps = [step for step, _ in curve.points]
    losses = [loss if math.isfinite(loss) else 0.0 for _, loss in curve.points]
    top = _ticks(max(losses))[-1]
    first, last = steps[0], max(steps[-1], steps[0] + 1)

    def x(step: float) -> float:
        return _LEFT + (step - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)

    def y(loss: float) -> float:
        return _HEIGHT - _BOTTOM - loss / top * (_HEIGHT - _TOP - _BOTTOM)

    def line(values: Sequence[float]) -> str:
        return " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in zip(steps, values, strict=True))

    grid = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in _ticks(max(losses))
    )
    marks = "".join(
        f'<text x="{x(step):.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{text}</text>'
        for step, anchor, text in (
            (first, "start", f"{first}"),
            ((first + last) / 2, "middle", "optimiser step"),
            (last, "end", f"{last}"),
        )
    )
    mean = _moving_mean(losses, max(1, len(losses) // 12))
    says = f"{curve.title}: the loss went from {losses[0]:.2f} to {losses[-1]:.2f} in {len(losses)} steps."
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(says)}">{grid}{marks}'
        f'<polyline class="raw" points="{line(losses)}"/><polyline class="mean" points="{line(mean)}"/></svg>'
    )


def _ticks(highest: float) -> list[float]:
    """Round numbers from 0 to at least `highest`, three to six of them."""
    rough = max(highest, 1e-6) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    unit = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    return (
        [round(unit * count, 10) for count in range(math.ceil(highest / unit - 1e-9) + 1)] if highest > 0 else [0.0, unit]
    )


def _moving_mean(values: Sequence[float], window: int) -> list[float]:
    """Return the mean over up to `window` values on each side."""
    spans = [values[max(0, place - window) : place + window + 1] for place in range(len(values))]
    return [sum(span) / len(span) for span in spans]
