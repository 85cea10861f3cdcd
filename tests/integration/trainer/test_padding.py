"""Rows of tokens in one batch: padding is masked on either side, and positions count a row's own tokens."""

import torch

from services.language_models.padding import pad_rows

CPU = torch.device("cpu")


def test_padding_on_the_right_follows_each_row() -> None:
    batch = pad_rows([[5, 6, 7], [8]], 9, "right", CPU)
    assert batch.ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_padding_on_the_left_ends_every_row_at_the_last_position() -> None:
    batch = pad_rows([[5, 6, 7], [8], []], 9, "left", CPU)
    assert batch.ids.tolist() == [[5, 6, 7], [9, 9, 8], [9, 9, 9]]
    assert batch.mask.tolist() == [[1, 1, 1], [0, 0, 1], [0, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2], [0, 0, 0], [0, 0, 0]]


def test_a_batch_is_of_whole_numbers_even_if_all_rows_are_empty() -> None:
    assert pad_rows([[]], 9, "right", CPU).ids.dtype == torch.int64
