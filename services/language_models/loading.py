"""Loads models and tokenizers, from local files only: safetensors weights, and never code that comes with a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_GIVEN = {"local_files_only": True, "trust_remote_code": False}


def load_tokenizer(folder: Path) -> Any:
    """Load a tokenizer. Raises the errors of the library's parsers."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), **_GIVEN)


def load_config(folder: Path) -> Any:
    """Load a model's configuration. Raises the errors of the library's parsers."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(folder), **_GIVEN)


def load_causal(folder: Path, dtype: "torch.dtype", **options: Any) -> Any:
    """Load a causal language model. Raises the library's errors."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, use_safetensors=True, **_GIVEN, **options)
