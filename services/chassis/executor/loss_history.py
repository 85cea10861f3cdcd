"""Keeps the losses of a run in bounded space: means over equal spans, which double in length when they become too many."""

import math

LENGTH = 40
"""The most means that are kept."""


class LossHistory:
    """The losses of one run, oldest first."""

    def __init__(self) -> None:
        self._means: list[float] = []
        self._span = 1
        """Number of losses in each mean."""
        self._sum, self._count = 0.0, 0

    def add(self, loss: float) -> None:
        """Add the loss of the next step; one that is not finite is left out."""
        if not math.isfinite(loss):
            return
        self._sum, self._count = self._sum + loss, self._count + 1
        if self._count < self._span:
            return
        self._means.append(self._sum / self._count)
        self._sum, self._count = 0.0, 0
        if len(self._means) > LENGTH:
            left, right = self._means[0:LENGTH:2], self._means[1:LENGTH:2]
            rest = self._means[LENGTH]
            self._means = [(one + other) / 2 for one, other in zip(left, right, strict=True)]
            self._sum, self._count = rest * self._span, self._span
            self._span *= 2

    @property
    def means(self) -> tuple[float, ...]:
        """The means so far, and that of the span that is not full yet, to four digits."""
        return tuple(float(f"{mean:.4g}") for mean in (*self._means, *([self._sum / self._count] if self._count else [])))
