"""What TRL's trainers of sampled answers share here: prompts that are tokens already, and our own sampling.

Each optimiser step samples the answers that it learns from, with random numbers that depend on the seed and the step alone. So no
answers outlive a step, and a run that resumes samples what one that was never interrupted does.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

Sample = Callable[[Any, Sequence[Sequence[int]], int], list[list[list[int]]]]
"""Samples the answers of a group to each prompt, from the model and a key of the random numbers. An answer contains the token that
ended it."""


class OwnSampling:
    """A mixin in front of a trainer of TRL, for rows with `prompt`, the tokens of a prompt."""

    model: Any
    _sample: Sample

    def _tokenize_prompts(self, prompts: Any) -> Any:
        """The prompts are tokens already, those of a server."""
        return prompts, None, {}

    def _sampled(self, prompt_ids: Sequence[Sequence[int]]) -> list[list[int]]:
        """Sample the answers of each group, one group after the other, without dropout."""
        key = int(torch.randint(2**62, ()))  # drawn after the step is seeded
        with without_dropout(self.model):
            groups = self._sample(self.model, prompt_ids, key)
        return [answer for group in groups for answer in group]


@contextmanager
def without_dropout(model: Any) -> Iterator[None]:
    """Within this block the model is in evaluation mode."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
