"""Keeps a series of numbers in bounded space: means over equal spans, which double in length when they become too many."""

import math

LENGTH = 40
"""The most means that are kept, unless another length is asked for."""


class Series:
    """The numbers of one run, oldest first; `length` is even."""

    def __init__(self, length: int = LENGTH) -> None:
        self._length = length
        self._means: list[float] = []
        self._span = 1
        """How many numbers each mean is of."""
        self._sum, self._count = 0.0, 0

    def add(self, value: float) -> None:
        """Add the next number; one that is not finite is left out."""
        if not math.isfinite(value):
            return
        self._sum, self._count = self._sum + value, self._count + 1
        if self._count < self._span:
            return
        self._means.append(self._sum / self._count)
        self._sum, self._count = 0.0, 0
        if len(self._means) > self._length:
            pairs = zip(self._means[0 : self._length : 2], self._means[1 : self._length : 2], strict=True)
            last = self._means[self._length]
            self._means = [(one + other) / 2 for one, other in pairs]
            self._sum, self._count = last * self._span, self._span
            self._span *= 2

    @property
    def means(self) -> tuple[float, ...]:
        """The means so far, and that of the span that is not full yet, to four digits; at most one more than `length`."""
        unfinished = [self._sum / self._count] if self._count else []
        return tuple(float(f"{mean:.4g}") for mean in (*self._means, *unfinished))


class TimedSeries:
    """Numbers by the seconds at which they were measured."""

    def __init__(self, length: int = 200) -> None:
        self._seconds, self._values = Series(length), Series(length)

    def add(self, seconds: float, value: float) -> None:
        """Add a number; one that is not finite is left out."""
        if math.isfinite(value):
            self._seconds.add(seconds)
            self._values.add(value)

    @property
    def points(self) -> tuple[tuple[float, float], ...]:
        """Seconds and numbers, as means over equal spans."""
        return tuple(zip(self._seconds.means, self._values.means, strict=True))
