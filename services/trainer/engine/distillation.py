"""TRL's trainer of on-policy distillation, with our own sampling, for prompts that are tokens already."""

from collections.abc import Sequence
from typing import Any

import torch
from trl import DistillationTrainer

from services.language_models.chat_format.chat import Chat
from services.language_models.lengths import context_length
from services.language_models.padding import common_width
from services.trainer.engine.own_sampling import OwnSampling, Sample


class TeachingTrainer(OwnSampling, DistillationTrainer):  # type: ignore[misc]  # TRL has no types
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

    def _generate_single_turn(self, prompt_ids: Sequence[Sequence[int]], *_: Any, **__: Any) -> list[list[int]]:
        return self._sampled(prompt_ids)

    def _get_last_hidden_state(self, model: Any, ids: torch.Tensor, mask: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        batch = common_width(ids, mask, context_length(model.config))
        return super()._get_last_hidden_state(model, batch.ids, batch.mask, *args, **kwargs)
