"""Loads models and tokenizers, from local files only: safetensors weights, and never code that comes with a model."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_REPORTS = ("transformers.modeling_utils", "transformers.distributed.tensor_parallel")
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
"""PEFT and TRL ask transformers by an earlier name; nobody who runs a job can do anything about it."""
GIVEN = {"local_files_only": True, "trust_remote_code": False}
"""What is given to every loader of the library."""


@contextmanager
def without_report() -> Iterator[None]:
    """Within this block the library shows no progress and logs nothing about missing, unknown or unsharded weights.

    The caller reads what is missing.
    """
    from transformers.utils import logging as library

    library.disable_progress_bar()
    reports = [logging.getLogger(name) for name in _REPORTS]
    levels = [report.level for report in reports]
    for report in reports:
        report.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for report, level in zip(reports, levels, strict=True):
            report.setLevel(level)


def load_tokenizer(folder: Path) -> Any:
    """Load a tokenizer. Raises the errors of the library's parsers."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), **GIVEN)


def load_config(folder: Path) -> Any:
    """Load a model's configuration, without the attention that it was saved with. Raises the errors of the library's parsers."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), **GIVEN)
    config._attn_implementation = None
    return config


def load_causal(folder: Path, dtype: "torch.dtype", **options: Any) -> Any:
    """Load a causal language model. Raises the library's errors."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    if "gguf_file" not in options:  # which contains its configuration
        options["config"] = load_config(folder)
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, use_safetensors=True, **GIVEN, **options)
