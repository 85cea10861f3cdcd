"""Loads what every step on a model needs: threads, device, dtype, base model, adapter and chat format."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

from schemas.reasons import Reason
from schemas.recipes.model import Precision
from schemas.results import ADAPTER, MODEL
from services.chassis.executor.child import Context, UserFault
from services.language_models.chat_format.chat import Chat, ChatFault
from services.language_models.precision import compute_dtype, device, use_physical_cores
from services.trainer.modelling.adapter import load_for_inference, refuse_other_base
from services.trainer.modelling.base_files import base_digest, base_folder
from services.trainer.modelling.stored_model import load_whole

_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")


def answering_chat_faults(step: Callable[_Given, _Made]) -> Callable[_Given, _Made]:
    """Make a step answer a chat that the template refuses as a fault of the data: `prepare` accepted it under other rules."""

    @wraps(step)
    def answering(*given: _Given.args, **named: _Given.kwargs) -> _Made:
        try:
            return step(*given, **named)
        except ChatFault as fault:
            raise UserFault(Reason(field="dataset", message=str(fault), remedy=fault.remedy)) from fault

    return answering


@dataclass(frozen=True)
class LoadedModel:
    """The model that a step works on, with its device and chat format."""

    base: Path
    """The base model's folder, whose files prepare checked, or in its place that of the input model."""
    digest: str
    """Digest of the files in it."""
    adapter: Path | None
    """The input adapter's folder."""
    chat: Chat
    """The chat format with the request's template, else the adapter's, else the base model's; they are equal unless files
    were altered."""
    dtype: torch.dtype
    device: torch.device
    made: bool
    """Whether `base` is an input model, which a step made."""

    def model(self) -> Any:
        """Return the model for inference: the base with the adapter merged, or the input model."""
        if self.adapter is None and self.made:
            return load_whole(self.base, self.dtype, self.device)
        return load_for_inference(self.base, self.adapter, self.dtype, self.device)


def load(context: Context, base_model: str, precision: Precision, chat_template: str | None) -> LoadedModel:
    """Load everything except weights. Raises UserFault if the base model is missing or has changed, or has no chat format."""
    use_physical_cores(context.task.processes)
    base, digest, adapter = model_files(context, base_model)
    where = device()
    try:
        chat = Chat(adapter or base, chat_template)
    except ChatFault as error:
        field = "base_model" if chat_template is None else "chat_template"
        raise UserFault(Reason(field=field, message=str(error), remedy=error.remedy)) from error
    made = MODEL in context.task.inputs
    return LoadedModel(base, digest, adapter, chat, compute_dtype(precision, where), where, made)


def model_files(context: Context, base_model: str) -> tuple[Path, str, Path | None]:
    """Return the folder of the base model, or of the input model in its place, the digest of its files, and the input adapter's folder.

    Raises UserFault if the base model is missing or has changed, or the adapter was trained on another one.
    """
    if MODEL in context.task.inputs:
        base, digest = fetched(context, MODEL), context.task.inputs[MODEL].sha256
    else:
        base = base_folder(base_model, context.task)
        digest = base_digest(base, context)
    adapter = fetched(context, ADAPTER) if ADAPTER in context.task.inputs else None
    if adapter is not None:
        refuse_other_base(adapter, digest)
    return base, digest, adapter


def fetched(context: Context, name: str) -> Path:
    """Fetch an input artifact and return its local folder."""
    return context.store.fetch(context.task.inputs[name], context.task.cache)
