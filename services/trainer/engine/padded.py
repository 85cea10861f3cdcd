"""Pads chats to one batch in the columns that TRL's trainers read. Batches have few widths (`common_size`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from services.language_models.padding import PaddedRows, common_size, pad_rows

Chat = tuple[Sequence[int], Sequence[int]]
"""Token ids, and 1 for those of the answer."""
_CPU = torch.device("cpu")
_UNSUPERVISED = -100


def padded(chats: Sequence[Chat], pad_id: int, most: int | None, prefix: str = "") -> dict[str, torch.Tensor]:
    """Return ids, attention mask and the mask of the answers, [chats, tokens]; `most` tokens are all that the model reads."""
    ids, mask = in_common_width([ids for ids, _ in chats], pad_id, most)
    learnt = in_common_width([learnt for _, learnt in chats], 0, most).ids
    return {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask, f"{prefix}completion_mask": learnt}


def in_common_width(rows: Sequence[Sequence[int]], pad_id: int, most: int | None) -> PaddedRows:
    """Pad rows at the end."""
    return pad_rows(rows, pad_id, "right", _CPU, common_size(max(map(len, rows)), most))


@dataclass(frozen=True)
class SupervisedPadding:
    """Pads rows with `input_ids` and `labels` to one batch."""

    pad_id: int
    most: int | None
    """All tokens that the model reads; None for any number."""

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        ids, mask = in_common_width([example["input_ids"] for example in examples], self.pad_id, self.most)
        labels = in_common_width([example["labels"] for example in examples], _UNSUPERVISED, self.most).ids
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@dataclass(frozen=True)
class SidesPadding:
    """Pads pairs with `chosen_ids` and `rejected_ids` to one batch, the chosen ones first; a wanted `margin` stays beside them."""

    pad_id: int
    most: int | None

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        sides = [example[side] for side in ("chosen_ids", "rejected_ids") for example in examples]
        ids, mask = in_common_width(sides, self.pad_id, self.most)
        margins = {"margin": torch.tensor([example["margin"] for example in examples])} if "margin" in examples[0] else {}
        return {"input_ids": ids, "attention_mask": mask, **margins}
