"""Bounds the logits of one batch, which exceed the model's size with a large vocabulary and long texts."""

_AT_MOST = 512 * 1024 * 1024
"""The most bytes of one batch's logits."""
BYTES_PER_LOGIT = 10
"""Bytes per logit that is scored: as computed, as fp32, and for the sum of exponentials."""


def tokens_of_logits(vocabulary: int) -> int:
    """Return how many tokens of a batch may have logits, at least one."""
    return max(1, _AT_MOST // (vocabulary * BYTES_PER_LOGIT))


def rows_of_logits(positions: int, vocabulary: int) -> int:
    """Return how many rows of so many positions may be in a batch, at least one."""
    return max(1, tokens_of_logits(vocabulary) // positions)
