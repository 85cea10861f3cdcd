"""Generates one answer of a registered version for a person, with the same template and precision as its evaluation."""

from collections.abc import Sequence
from pathlib import Path

from schemas.lines import Message
from services.language_models.chat_format.chat import Chat
from services.language_models.generation import SamplingParams, generate
from services.language_models.precision import compute_dtype, device, use_physical_cores
from services.trainer.modelling.adapter import load_for_inference
from services.trainer.modelling.stored_model import load_whole


def answer(base: Path | None, made: Path, messages: Sequence[Message], max_new_tokens: int) -> str:
    """Return the greedy answer of `made`: an adapter of the model `base`, or without it a whole model.

    Raises ChatFault, and UserFault if the files do not fit together or cannot be loaded.
    """
    use_physical_cores()
    where = device()
    chat = Chat(made)
    dtype = compute_dtype("auto", where)
    model = load_whole(made, dtype, where) if base is None else load_for_inference(base, made, dtype, where)
    decoding = SamplingParams(chat.stop_ids, chat.pad_id, max_new_tokens)
    ((ids,),) = generate(model, chat.prompts([messages]), [[None]], decoding)
    return chat.text(ids)
