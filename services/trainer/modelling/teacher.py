"""Finds the teacher of a distillation, and proves in `prepare` that it reads the tokens of the model that learns from it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schemas.reasons import Reason, shown
from schemas.recipes.distill import DistillSettings
from schemas.results import TEACHER_SHA256
from services.chassis.executor.child import Context, UserFault
from services.chassis.storage.references import ReferenceFault, folder_digest, resolve_model
from services.language_models.loading import load_tokenizer
from services.trainer.modelling.architecture import Architecture, architecture_of
from services.trainer.modelling.base_files import SEND_AGAIN, BaseFault, changed_since_checked
from services.trainer.modelling.fitting import fitted
from services.trainer.modelling.weight_files import refuse_pointers, stored_tensors
from services.trainer.modelling.zero_weights import refuse_zeros

_REMEDY = "name a teacher of the base model's family, which has the same tokenizer"


def teacher_folder(settings: DistillSettings, context: Context) -> Path:
    """Return the folder of the teacher, all of whose files jobs may read. Raises UserFault."""
    if settings.teacher is None:
        raise _fault(None, "distillation learns from a teacher, and none is named", "name a model in distill.teacher")
    try:
        return resolve_model(settings.teacher, context.task.cache, context.task.allowed)
    except ReferenceFault as fault:
        raise _fault(settings.teacher, fault.reason, fault.remedy) from fault


def teacher_digest(folder: Path, context: Context) -> str:
    """Return the digest of the teacher's files. Raises UserFault if it differs from what a step of this job recorded."""
    digest = folder_digest(folder, context.task.cache)
    if what := changed_since_checked(context, TEACHER_SHA256, digest):
        raise _fault(str(folder), what, SEND_AGAIN)
    return digest


def checked_teacher(settings: DistillSettings, folder: Path, student: Architecture, tokenizer: Any) -> Architecture:
    """Return the teacher's architecture. Raises UserFault if it cannot be loaded, or reads other tokens than the student."""
    with _faults_of(settings):
        refuse_pointers(folder)
        architecture = architecture_of(folder)
        tensors = stored_tensors(folder)
        fitted(architecture, tensors)
        refuse_zeros(folder, tensors.values())
        try:
            theirs = load_tokenizer(folder).get_vocab()
        except Exception as error:  # the library raises whatever its parsers raise
            raise BaseFault(f"its tokenizer cannot be loaded ({type(error).__name__})", _REMEDY) from error
        ours = tokenizer.get_vocab()
        different = len(dict(ours.items() ^ theirs.items()))
        if different:
            raise BaseFault(f"its tokenizer is not the base model's: {different} tokens have other numbers", _REMEDY)
        sizes = [int(each.config.get_text_config().vocab_size) for each in (student, architecture)]
        if sizes[0] != sizes[1]:
            raise BaseFault(f"it knows {sizes[1]} tokens, and the base model {sizes[0]}", _REMEDY)
        longest = architecture.context_length
        if longest is not None and longest < settings.max_length:
            what = f"it reads {longest} tokens at most, and prompt and answer together may have {settings.max_length}"
            raise BaseFault(what, "lower distill.max_prompt_tokens or distill.max_new_tokens")
    return architecture


@contextmanager
def _faults_of(settings: DistillSettings) -> Iterator[None]:
    try:
        yield
    except BaseFault as fault:
        raise _fault(settings.teacher, fault.message, fault.remedy) from fault


def _fault(reference: str | None, message: str, remedy: str) -> UserFault:
    value = None if reference is None else shown(reference)
    return UserFault(Reason(field="distill.teacher", value=value, message=message, remedy=remedy))
