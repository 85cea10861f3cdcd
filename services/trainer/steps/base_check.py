"""Checks a base model in `prepare`, so that every later step can load it: its files, architecture, weights and tokenizer.

It reads headers and configurations, and of the weights a head and embeddings that may be one matrix, and matrices as far as they are zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from schemas.lines import Message
from schemas.reasons import Reason, shown
from schemas.recipes.lora import LoraSettings
from schemas.recipes.methods import trains_all
from schemas.recipes.model import AssistantTurns
from schemas.steps import PrepareSettings
from services.chassis.executor.child import UserFault
from services.language_models.chat_format.chat import Answered, Chat, ChatFault, Tokens
from services.trainer.compression.checks import refuse_impossible
from services.trainer.modelling.adapter import check_lora
from services.trainer.modelling.architecture import Architecture, architecture_of
from services.trainer.modelling.base_files import BaseFault, base_fault
from services.trainer.modelling.fitting import fitted, fitted_scoring, refuse_two_heads
from services.trainer.modelling.layers import targets_of
from services.trainer.modelling.tracing import refuse_unrunnable
from services.trainer.modelling.weight_files import StoredTensor, refuse_pointers, stored_tensors
from services.trainer.modelling.zero_weights import refuse_zeros
from services.trainer.steps.abilities import check_abilities, check_continuation
from services.trainer.steps.prompt_check import online_of

_NAME = 40
"""The longest name of a token that is repeated in a message."""
_TOKENIZER_OF_MODEL = "take the tokenizer that belongs to the model, or resize the model's embeddings and save both"
_PROBE = ([Message(role="user", content="Hi")], "Hi")


@dataclass(frozen=True)
class CheckedBase:
    """What the checks found out about a base model."""

    chat: Chat
    architecture: Architecture

    @property
    def context_length(self) -> int | None:
        """The most tokens that it reads; None if it has no limit."""
        return self.architecture.context_length


class CheckedWeights(NamedTuple):
    """What configuration and headers say of a model."""

    architecture: Architecture
    tensors: Mapping[str, StoredTensor]
    embeddings: int
    """The number of tokens that it reads."""


def checked_base(folder: Path, settings: PrepareSettings, adapter: Path | None = None) -> CheckedBase:
    """Check the base model in `folder`, and what is to happen to it and to the `adapter` that training continues from.

    Raises UserFault, with cause and remedy, if a later step could not use it.
    """
    try:
        architecture, tensors, embeddings = weights_checked(folder)
        chat = checked_chat(adapter or folder, settings.chat_template, embeddings)
    except BaseFault as fault:
        raise base_fault(settings.base_model, fault.message, fault.remedy) from fault
    refuse_longer(architecture.context_length, settings)
    for section, training in settings.methods.items():
        check_abilities(architecture, training, section)
        if adapter is not None:
            check_continuation(training, section, settings.base_model)
        if section != "reward" and not trains_all(training):
            _check_lora(fitted(architecture, tensors), training.lora, section)
    if settings.distill is not None:
        _refuse_head(fitted(architecture, tensors), settings.distill.lora)
    if settings.reward is not None:
        try:
            scoring = fitted_scoring(architecture, tensors)
        except BaseFault as fault:
            raise base_fault(settings.base_model, fault.message, fault.remedy) from fault
        _check_lora(scoring, settings.reward.lora, "reward")
    for compression in settings.compressions:
        refuse_impossible(fitted(architecture, tensors), folder, compression)
    return CheckedBase(chat, architecture)


def weights_checked(folder: Path) -> CheckedWeights:
    """Check configuration and weights of a model for whatever is to happen to it. Raises BaseFault."""
    refuse_pointers(folder)
    architecture = architecture_of(folder)
    tensors = stored_tensors(folder)
    model = fitted(architecture, tensors)
    refuse_zeros(folder, tensors.values())
    refuse_two_heads(folder, model, tensors)
    embeddings = int(model.get_input_embeddings().num_embeddings)
    refuse_unrunnable(model)
    return CheckedWeights(architecture, tensors, embeddings)


def refuse_longer(limit: int | None, settings: PrepareSettings) -> None:
    """Raise UserFault if what is learnt may be longer than the `limit` tokens that the base model reads; None: no limit."""
    if limit is None:
        return
    online = online_of(settings)
    lengths = {f"{section}.max_prompt_tokens": given.max_length for section, given in online.items()}
    if settings.training is not None:
        lengths["training.max_length"] = settings.training.max_length
    elif not online:
        lengths["training.max_length"] = settings.max_length
    reasons = [
        Reason(
            field=field,
            value=str(length),
            message=f"the base model reads {limit} tokens at most"
            + (", and with max_new_tokens it is more" if field != "training.max_length" else ""),
            remedy=f"set training.max_length to {limit} or less"
            if field == "training.max_length"
            else f"lower it or {field.partition('.')[0]}.max_new_tokens, so that their sum is {limit} or less",
        )
        for field, length in lengths.items()
        if length > limit
    ]
    if reasons:
        raise UserFault(*reasons)


def _check_lora(model: Any, lora: LoraSettings, section: str) -> None:
    try:
        check_lora(model, lora)
    except UserFault as fault:
        fields = {reason: reason.field.replace("training.", f"{section}.", 1) for reason in fault.reasons}
        raise UserFault(*(reason.model_copy(update={"field": field}) for reason, field in fields.items())) from fault


def _refuse_head(model: Any, lora: LoraSettings) -> None:
    """Raise UserFault if the adapter would change the head: the loss of a distillation reads the head's own weights."""
    head = model.get_output_embeddings()
    name = next(path for path, part in model.named_modules() if part is head)
    ends = {target: f".{name}".endswith(f".{target}") for target in lora.modules_to_save}
    if name in targets_of(model, lora) or any(ends.values()):
        raise UserFault(
            Reason(
                field="distill.lora.targets" if name in targets_of(model, lora) else "distill.lora.modules_to_save",
                value=shown(name),
                message="distillation reads the weights of the model's head, so an adapter there would learn nothing",
                remedy=f"leave {name} out",
            )
        )


class _BeyondVocabulary(ChatFault):
    """A chat has a token for which the model has no embedding."""


class _ReadableChat(Chat):
    """A chat format that refuses chats with tokens for which the model has no embedding."""

    def __init__(self, folder: Path, template: str | None, embeddings: int) -> None:
        super().__init__(folder, template)
        self._embeddings = embeddings

    def encode(self, chats: Sequence[Answered], turns: AssistantTurns = "all") -> list[Tokens]:
        """As of any chat format. Raises ChatFault also for a token beyond the embeddings."""
        encoded = super().encode(chats, turns)
        beyond = next((token for tokens in encoded for token in tokens.ids if token >= self._embeddings), None)
        if beyond is None:
            return encoded
        name = self.tokenizer.convert_ids_to_tokens(beyond)
        named = f"{name} ({beyond})" if isinstance(name, str) and name.isprintable() and len(name) <= _NAME else str(beyond)
        raise _BeyondVocabulary(
            f"its tokenizer makes the token {named}, but the model has {self._embeddings} token embeddings"
        )


def checked_chat(folder: Path, template: str | None, embeddings: int) -> Chat:
    """Return the chat format of the model or adapter in `folder`, for a model with so many embeddings. Raises BaseFault, and UserFault
    for a faulty `template`."""
    try:
        chat = _ReadableChat(folder, template, embeddings)
    except ChatFault as error:
        if template is not None:
            remedy = "correct it, or leave it out if the base model has one"
            raise UserFault(Reason(field="chat_template", message=str(error), remedy=remedy)) from error
        raise BaseFault(str(error), error.remedy) from error
    if chat.pad_id >= embeddings:
        what = f"its tokenizer ends a text with the token {chat.pad_id}, but the model has {embeddings} token embeddings"
        raise BaseFault(what, _TOKENIZER_OF_MODEL)
    try:
        _ = chat.stop_ids
    except ChatFault as error:
        raise BaseFault(str(error), "correct the file or remove it") from error
    except Exception as error:  # whatever the parser raises
        what = f"its generation_config.json cannot be read ({type(error).__name__})"
        raise BaseFault(what, "correct the file or remove it") from error
    try:
        chat.encode([_PROBE])
    except _BeyondVocabulary as error:
        raise BaseFault(str(error), _TOKENIZER_OF_MODEL) from error
    except ChatFault:
        return chat  # a template may want other turns; rows that it refuses are named when they are read
    return chat
