"""Defines the interface of training objectives: an objective computes the loss of a part of a batch for the loop."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch


class Objective(Protocol):
    """The loss to minimise; examples are identified by their index."""

    @property
    def lengths(self) -> Sequence[int]:
        """Number of tokens of each example."""

    def begin(self, model: Any, on_part: Callable[[], None]) -> None:
        """Prepare. Called once with the adapter as before the first step, also if the run then resumes from a checkpoint.

        Calls `on_part` at intervals, which reports that the run is alive and may raise to end it.
        """

    def loss(self, model: Any, examples: Sequence[int], batch: Sequence[int]) -> tuple[torch.Tensor, Mapping[str, float]]:
        """Return the contribution of `examples` to the mean loss of `batch`, and to each metric for the curve.

        Over any partition of the batch the contributions sum to the values of the batch.
        """

    def validate(self, model: Any) -> Mapping[str, float]:
        """Metrics on held-out examples, computed at every checkpoint and at the end; may be empty."""
