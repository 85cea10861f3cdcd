"""Pads chats to one batch in the columns that TRL's trainers of preferences read."""

from collections.abc import Sequence

import torch

from services.language_models.padding import pad_rows

Chat = tuple[Sequence[int], Sequence[int]]
"""Token ids, and 1 for those of the answer."""


def padded(chats: Sequence[Chat], pad_id: int, prefix: str = "") -> dict[str, torch.Tensor]:
    """Return ids, attention mask and the mask of the answers, [chats, tokens]."""
    cpu = torch.device("cpu")
    ids, mask = pad_rows([ids for ids, _ in chats], pad_id, "right", cpu)
    learnt = pad_rows([learnt for _, learnt in chats], 0, "right", cpu).ids
    return {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask, f"{prefix}completion_mask": learnt}
