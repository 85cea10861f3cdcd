"""The loop knows nothing of what is learnt; an objective turns part of a batch into its part of the batch's loss."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch


class Objective(Protocol):
    """What is to be learnt from examples, which are named by their numbers."""

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each example."""

    def begin(self, model: Any, on_part: Callable[[], None]) -> None:
        """Called once with the adapter as it is before the first step, also when the run then goes on from a checkpoint.

        Calls `on_part` now and then: it tells that the run is alive, and may raise to end it.
        """

    def loss(self, model: Any, examples: Sequence[int], batch: Sequence[int]) -> tuple[torch.Tensor, Mapping[str, float]]:
        """The part of the mean loss of `batch` that `examples` carry, and their part of each figure for the curve.

        Over a partition of the batch both sum to the values of the batch, however it is cut.
        """

    def validate(self, model: Any) -> Mapping[str, float]:
        """Figures on held-out examples, measured at every checkpoint and at the end; may be empty."""
