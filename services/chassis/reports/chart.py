"""Draws a curve as inline SVG, so that a page needs no library and no network."""

import math
from collections.abc import Sequence
from itertools import pairwise

from services.chassis.reports.texts import safe

Points = Sequence[tuple[float, float]]
"""A curve's values by what they are measured over."""

_WIDTH, _HEIGHT = 420, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 10, 28
_POINTS = 400
"""The most points that are drawn; of longer curves, means over equal spans."""


def line_chart(points: Points, says: str, x_title: str) -> str:
    """Return an SVG element with the curve and its moving mean; the y axis includes 0. `says` is read out instead of it.

    There must be at least one point. Values that are not finite are drawn as 0.
    """
    shown = _thinned([(x, y if math.isfinite(y) else 0.0) for x, y in points])
    over, values = [x for x, _ in shown], [y for _, y in shown]
    ticks = _ticks(min(0.0, *values), max(0.0, *values))
    low, high = ticks[0], ticks[-1]
    first, last = over[0], over[-1] if over[-1] > over[0] else over[0] + 1

    def at_x(value: float) -> float:
        return _LEFT + (value - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)

    def at_y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def line(series: Sequence[float]) -> str:
        return " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in zip(over, series, strict=True))

    grid = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at_y(tick):.1f}" y2="{at_y(tick):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{at_y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in ticks
    )
    marks = "".join(
        f'<text x="{at_x(place):.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{safe(text)}</text>'
        for place, anchor, text in (
            (first, "start", _place(first)),
            ((first + last) / 2, "middle", x_title),
            (last, "end", _place(last)),
        )
    )
    mean = _moving_mean(values, max(1, len(values) // 12))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{safe(says)}">{grid}{marks}'
        f'<polyline class="raw" points="{line(values)}"/><polyline class="mean" points="{line(mean)}"/></svg>'
    )


def _place(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"


def _thinned(points: Points) -> Points:
    if len(points) <= _POINTS:
        return points
    edges = [len(points) * column // _POINTS for column in range(_POINTS + 1)]
    spans = [points[start:end] for start, end in pairwise(edges)]
    means = [(span[-1][0], sum(y for _, y in span) / len(span)) for span in spans]
    return [(points[0][0], means[0][1]), *means[1:]]


def _ticks(lowest: float, highest: float) -> list[float]:
    """Return round numbers from at most `lowest`, which is not above 0, to at least `highest`, which is not below; three or more.
    A curve that is 0 throughout gets the ticks of a share.
    """
    if lowest == highest:
        highest = 1.0
    rough = max(highest - lowest, 1e-12) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    unit = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(lowest / unit + 1e-9), max(1, math.ceil(highest / unit - 1e-9))
    return [float(f"{unit * count:.12g}") for count in range(first, last + 1)]


def _moving_mean(values: Sequence[float], window: int) -> list[float]:
    """Return the mean over up to `window` values on each side."""
    spans = [values[max(0, place - window) : place + window + 1] for place in range(len(values))]
    return [sum(span) / len(span) for span in spans]
