"""Generates one answer of a registered version for a person, with the same template and precision as its evaluation."""

from collections.abc import Sequence
from pathlib import Path

from schemas.lines import Message
from services.language_models.precision import compute_dtype, device, use_physical_cores
from services.trainer.modelling.adapter import load_for_inference
from services.trainer.modelling.chat import Chat
from services.trainer.modelling.generation import SamplingParams, generate


def answer(base: Path, adapter: Path, messages: Sequence[Message], max_new_tokens: int) -> str:
    """Return the model's greedy answer. Raises ChatFault, and ValueError if base and adapter do not fit."""
    use_physical_cores()
    where = device()
    chat = Chat(adapter)
    model = load_for_inference(base, adapter, compute_dtype("auto", where), where)
    decoding = SamplingParams(chat.stop_ids, chat.pad_id, max_new_tokens)
    ((ids,),) = generate(model, chat.prompts([messages]), [[None]], decoding)
    return chat.text(ids)
