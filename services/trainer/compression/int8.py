"""Stores the linear layers in 8 bits with bitsandbytes (LLM.int8()): transformers loads the result where bitsandbytes is installed."""

import logging
import tempfile
from pathlib import Path
from typing import Any

from schemas.reasons import Reason
from services.chassis.executor.child import UserFault
from services.language_models.loading import load_causal
from services.trainer.compression.made import Compression
from services.trainer.compression.weights import write_model
from services.trainer.modelling.base import faults_of
from services.trainer.modelling.four_bits import with_bitsandbytes
from services.trainer.modelling.whole import save_model


def int8(work: Compression) -> None:
    """Write the quantised model. The head and the embeddings stay as they are."""
    configuration = _configuration()
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)  # a line per layer about its own casts
    with tempfile.TemporaryDirectory() as name:
        source = work.parent.base
        if work.parent.adapter is not None:
            source = Path(name)
            write_model(work.whole(), source, work.dtype)
        with faults_of(source):
            place = {"": work.parent.device}
            model = load_causal(source, work.dtype, quantization_config=configuration, device_map=place)
        save_model(model, work.folder)


def _configuration() -> Any:
    with_bitsandbytes()
    try:
        import bitsandbytes  # noqa: F401  # imported here, so that the fault below reports its absence
        from transformers import BitsAndBytesConfig
    except (ImportError, OSError, RuntimeError) as error:
        message = f"bitsandbytes does not work on this machine: {error}"
        remedy = "use another method, or a machine that bitsandbytes supports"
        raise UserFault(Reason(field="compression.method", value="'int8'", message=message, remedy=remedy)) from error
    return BitsAndBytesConfig(load_in_8bit=True)
