"""Pads rows of tokens into one batch, at the end for a forward pass over whole rows, at the beginning for what comes next."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch.nn.functional import pad

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


def common_size(size: int, most: int | None = None) -> int:
    """Return `size` or up to an eighth more, but not more than `most`: eight sizes are common between a power of 2 and the next.

    A training computes tensors of these sizes only. On a CPU, oneDNN keeps what it has prepared for each shape, here 18 MB for a row length
    of a model of six layers; in memory that lies between the gaps, so that with each new shape the heap grows by several times as much.
    """
    step = 1 << max(0, size.bit_length() - 4)
    common = -(-size // step) * step
    return common if most is None else max(size, min(common, most))


def common_width(ids: torch.Tensor, mask: torch.Tensor, most: int | None = None) -> PaddedRows:
    """Pad a batch further at the beginning, to a common size of at most `most` tokens."""
    width = ids.shape[1]
    more = common_size(width, most) - width
    return PaddedRows(pad(ids, (more, 0)), pad(mask, (more, 0)))


def pad_rows(
    rows: Sequence[Sequence[int]], pad_id: int, side: Side, device: torch.device, width: int | None = None
) -> PaddedRows:
    """Pad `rows`, of which there is at least one, to `width` tokens, by default to the length of the longest; `pad_id` may be any token,
    since it is masked."""
    width = width or max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        own = slice(width - len(row), width) if side == "left" else slice(len(row))
        ids[index, own] = torch.tensor(row, dtype=torch.long)
        mask[index, own] = 1
    return PaddedRows(ids.to(device), mask.to(device))
