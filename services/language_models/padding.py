"""Pads rows of tokens into one batch, at the end for a forward pass over whole rows, at the beginning for what comes next."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

Side = Literal["left", "right"]
"""Where the padding is. left: every row ends at the last position, so that one read there says what follows each row."""


class PaddedRows(NamedTuple):
    """A batch of rows; both tensors are [rows, tokens] and int64."""

    ids: torch.Tensor
    mask: torch.Tensor
    """1 for a row's own tokens, 0 for padding."""

    @property
    def positions(self) -> torch.Tensor:
        """The number of each token in its row, from 0; 0 for padding on the left."""
        return (self.mask.cumsum(dim=1) - 1).clamp(min=0)


def pad_rows(rows: Sequence[Sequence[int]], pad_id: int, side: Side, device: torch.device) -> PaddedRows:
    """Pad `rows`, of which there is at least one, to the length of the longest; `pad_id` may be any token, since it is masked."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        own = slice(width - len(row), width) if side == "left" else slice(len(row))
        ids[index, own] = torch.tensor(row, dtype=torch.long)
        mask[index, own] = 1
    return PaddedRows(ids.to(device), mask.to(device))
