"""Merges an adapter into its base model. The base is loaded in full precision, whatever the adapter was trained on."""

from services.trainer.compression.made import Compression
from services.trainer.compression.weights import write_model


def merge(work: Compression) -> None:
    """Write the merged model."""
    write_model(work.whole(), work.folder, work.dtype)
