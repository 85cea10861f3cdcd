"""TRL's trainer of pairs for examples that are tokens already, with an `sft` term that does not depend on how a batch is cut."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl import DPOTrainer

from services.language_models.chat_format.chat import Chat
from services.language_models.lengths import context_length
from services.trainer.engine.padded import padded
from services.trainer.engine.reference import FixedReference, reference_columns

_SFT = "sft"
_PLACEHOLDER = "sigmoid"
_SIDES = ("chosen", "rejected")
_REFERENCES = ("ref_chosen_logps", "ref_rejected_logps")


class PairTrainer(FixedReference, DPOTrainer):  # type: ignore[misc]  # TRL has no types
    """Trains on rows with `chosen_ids` and `rejected_ids`, whole chats, and `chosen_learnt` and `rejected_learnt`, which are 1
    for the tokens of answers."""

    def __init__(
        self,
        model: Any,
        config: Any,
        rows: Any,
        chat: Chat,
        losses: Mapping[str, float],
        on_part: Callable[[], None],
    ) -> None:
        """`losses` are the terms with their weights; `on_part` is called between the passes of the reference."""
        self._on_part, self._sft_weight = on_part, losses.get(_SFT, 0.0)
        self._chosen_tokens: Any = 1
        theirs = {kind: weight for kind, weight in losses.items() if kind != _SFT}
        config.loss_type, config.loss_weights = list(theirs) or [_PLACEHOLDER], list(theirs.values()) or [1.0]
        model.eval()
        super().__init__(
            model=model,
            args=config,
            train_dataset=rows,
            processing_class=chat.tokenizer,
            data_collator=_Padding(chat.pad_id, context_length(model.config)),
        )
        self.loss_types, self.loss_weights = list(theirs), list(theirs.values())
        self._drop_reference()

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        """Also count the chosen tokens of the whole batch."""
        parts, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._sft_weight:
            counts = [part["completion_mask"].chunk(2)[0][:, 1:].sum() for part in parts]
            self._chosen_tokens = self.accelerator.gather(sum(counts)).sum()
        return parts, items

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The loss of a part of a batch, to which `sft` adds its share of the mean over the whole batch's chosen tokens.

        TRL takes the mean of each part, so that its term changes when memory forces smaller parts.
        """
        heard = _Heard(model)
        loss: torch.Tensor = super().compute_loss(heard, inputs)
        if not self._sft_weight:
            return loss
        chosen = heard.log_probs.chunk(2)[0].sum()
        scale = self.current_gradient_accumulation_steps * self.accelerator.num_processes
        share: torch.Tensor = self._sft_weight * scale * chosen / self._chosen_tokens
        return loss - share


@dataclass(frozen=True)
class _Padding:
    """Pads pairs to one batch, the chosen answers first."""

    pad_id: int
    most: int | None
    """All tokens that the model reads; None for any number."""

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        sides = [(example[f"{side}_ids"], example[f"{side}_learnt"]) for side in _SIDES for example in examples]
        reference = reference_columns(examples, _REFERENCES)
        return {**padded(sides, self.pad_id, self.most), **reference}


class _Heard:
    """Calls the model and keeps the log-probabilities that it returned."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.log_probs = torch.empty(0)

    def __call__(self, **inputs: Any) -> Any:
        output = self._model(**inputs)
        self.log_probs = output.log_probs
        return output
