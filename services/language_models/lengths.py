"""Reads from a model's configuration how many tokens it reads."""

from typing import Any

_LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length")
"""Names of the context length; each architecture has one of them, or none if its positions have no limit."""


def context_length(config: Any) -> int | None:
    """Return the most tokens that a model with this configuration reads; None if it has no limit."""
    text = config.get_text_config()
    lengths = (getattr(text, name, None) for name in _LENGTHS)
    return next((length for length in lengths if isinstance(length, int) and length > 0), None)
