"""Models and tokenizers are loaded here and nowhere else: from files on this machine, safetensors only, no code of the model's own."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_GIVEN = {"local_files_only": True, "trust_remote_code": False}


def load_tokenizer(folder: Path) -> Any:
    """Raises what the library's parsers raise."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), **_GIVEN)


def load_causal(folder: Path, dtype: "torch.dtype", **options: Any) -> Any:
    """A causal language model. Raises what the library raises."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, use_safetensors=True, **_GIVEN, **options)
