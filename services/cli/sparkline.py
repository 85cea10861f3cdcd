"""Draws a series of numbers as a line of block characters."""

import math
from collections.abc import Sequence
from itertools import pairwise

_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """Return at most `width` characters, from the lowest block for the least value to the highest for the greatest.

    Longer series are averaged over equal spans; values that are not finite are left out.
    """
    known = [value for value in values if math.isfinite(value)]
    if not known or width < 1:
        return ""
    columns = min(width, len(known))
    edges = [len(known) * column // columns for column in range(columns + 1)]
    means = [sum(known[start:end]) / (end - start) for start, end in pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    if span == 0:
        return _BLOCKS[0] * columns
    return "".join(_BLOCKS[min(len(_BLOCKS) - 1, int((value - low) / span * len(_BLOCKS)))] for value in means)
