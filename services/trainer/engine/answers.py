"""TRL's trainer of judged answers (KTO) for examples that are tokens already, with a loss that does not depend on how a batch
is cut into parts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl import KTOTrainer

from services.language_models.chat_format.chat import Chat
from services.language_models.lengths import context_length
from services.trainer.engine.padded import padded
from services.trainer.engine.reference import FixedReference, reference_columns

_REFERENCES = ("ref_logps", "ref_KL_logps")
_LEAST_SIZE = 2


class AnswerTrainer(FixedReference, KTOTrainer):  # type: ignore[misc]  # TRL has no types
    """Trains on rows with `answer_ids`, a whole chat, `answer_learnt`, which is 1 for the tokens of the answer, and `label`;
    `other_ids` and `other_learnt` are the same prompt with the answer to another one.

    The reference point of KTO is the mean over the other answers of the whole batch; TRL takes that of each part.
    """

    def __init__(self, model: Any, config: Any, rows: Any, chat: Chat, on_part: Callable[[], None]) -> None:
        """`on_part` is called between the passes of the reference."""
        self._on_part, self._distance = on_part, torch.zeros(())
        size = config.per_device_train_batch_size
        config.per_device_train_batch_size = max(size, _LEAST_SIZE)  # it refuses less, since its mean is over a part
        model.eval()
        super().__init__(
            model=model,
            args=config,
            train_dataset=rows,
            processing_class=chat.tokenizer,
            data_collator=_Padding(chat.pad_id, context_length(model.config)),
        )
        self.args.per_device_train_batch_size = self._train_batch_size = size
        self._drop_reference()

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        """Also measure how far the model is from its reference, over the whole batch."""
        parts, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.calculate_KL and parts:
            model = self.model.eval()  # dropout would depend on what was random before this step
            with self.accelerator.autocast():
                found = [super(AnswerTrainer, self)._compute_kl_logps(model, part) for part in parts]
            distances = [own - part["ref_KL_logps"] for own, part in zip(found, parts, strict=True)]
            self._distance = self.accelerator.gather(torch.cat(distances)).mean()
        return parts, items

    def _compute_kl_logps(self, model: Any, batch: Mapping[str, torch.Tensor]) -> Any:
        """Log-probabilities whose mean distance from the reference is that of the whole batch."""
        return batch["ref_KL_logps"] + self._distance if self.calculate_KL else None


@dataclass(frozen=True)
class _Padding:
    """Pads answers to one batch, and beside them the same prompts with other answers."""

    pad_id: int
    most: int | None
    """All tokens that the model reads; None for any number."""

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        own, other = (
            [(example[f"{side}_ids"], example[f"{side}_learnt"]) for example in examples] for side in ("answer", "other")
        )
        reference = reference_columns(examples, _REFERENCES)
        label = torch.tensor([example["label"] for example in examples])
        return {
            **padded(own, self.pad_id, self.most),
            **padded(other, self.pad_id, self.most, "KL_"),
            "label": label,
            **reference,
        }
