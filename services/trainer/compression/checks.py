"""Checks before a training whether its result can be compressed as asked."""

from pathlib import Path
from typing import Any

from schemas.recipes.compression import CompressionSettings
from services.trainer.compression.gguf_file import refuse_gguf
from services.trainer.compression.smaller import refuse_unsupported


def refuse_impossible(model: Any, folder: Path, settings: CompressionSettings) -> None:
    """Raise UserFault if the model in `folder`, which is on the meta device here, cannot be compressed so."""
    if settings.method == "prune" and settings.prune.what != "weights":
        refuse_unsupported(model, settings.prune.what)
    if settings.method == "gguf":
        refuse_gguf(model.config, folder)
