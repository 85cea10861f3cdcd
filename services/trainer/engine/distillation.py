"""TRL's trainer of on-policy distillation, with our own sampling, for prompts that are tokens already.

Each optimiser step samples the answers that it learns from, with random numbers that depend on the seed and the step alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from trl import DistillationTrainer

from services.trainer.engine.rollouts import without_dropout
from services.trainer.modelling.chat import Chat

Sample = Callable[[Any, Sequence[Sequence[int]], int], list[list[int]]]
"""Samples an answer to each prompt, from the model and a key of the random numbers. An answer contains the token that ended it."""


class TeachingTrainer(DistillationTrainer):  # type: ignore[misc]  # TRL has no types
    """Trains on rows with `prompt`, the tokens of a prompt. The loss is a mean over all tokens of the batch's answers, however
    it is cut into parts."""

    def __init__(self, model: Any, teacher: Any, config: Any, rows: Any, chat: Chat, sample: Sample) -> None:
        """`teacher` is frozen."""
        self._sample = sample
        chat.tokenizer.pad_token = chat.tokenizer.eos_token  # an added padding token often has no embedding
        super().__init__(
            model=model, teacher_model=teacher, args=config, train_dataset=rows, processing_class=chat.tokenizer
        )
        self.eos_token_ids = sorted(chat.stop_ids)

    def _tokenize_prompts(self, prompts: Any) -> Any:
        """The prompts are tokens already, those of a server."""
        return prompts, None, {}

    def _generate_single_turn(self, prompt_ids: Sequence[Sequence[int]], *_: Any, **__: Any) -> list[list[int]]:
        """Sample an answer to each prompt, without dropout."""
        key = int(torch.randint(2**62, ()))  # drawn after the step is seeded
        with without_dropout(self.model):
            return self._sample(self.model, prompt_ids, key)
