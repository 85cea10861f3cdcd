"""Checks copied files as a base model of a job is checked: a whole model by itself, an adapter with the base model that is named for it."""

import json
import re
import warnings
from pathlib import Path

from schemas.reasons import shown
from schemas.results import SCORES_ANSWERS
from services.chassis.executor.child import UserFault
from services.chassis.storage.sources.models import brings_code
from services.language_models.adapters import CONFIG
from services.language_models.chat_format.chat import Chat
from services.language_models.scoring import TASK
from services.trainer.modelling.adapter import RECORD, read_adapter, refuse_other_base
from services.trainer.modelling.base_files import BaseFault, base_fault
from services.trainer.modelling.fitting import fitted, fitted_scoring
from services.trainer.modelling.weight_files import refuse_pointers
from services.trainer.steps.base_check import checked_chat, weights_checked

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
_NO_CODE = "use a model whose architecture and tokenizer are part of the library"


def checked_model(folder: Path) -> Chat:
    """Check a whole model and return its chat format. Raises BaseFault."""
    _refuse_code(folder)
    checked = weights_checked(folder)
    return checked_chat(folder, None, checked.embeddings)


def checked_adapter(folder: Path, base: Path, base_model: str, digest: str) -> Chat:
    """Check an adapter with the base model in `base`, whose files have this digest, and return its chat format.

    One without a tokenizer gets that of its base model, since a version is served with its own. Raises BaseFault for a fault of the
    adapter, and UserFault for one of the base model.
    """
    _refuse_code(folder)
    refuse_pointers(folder)
    _refuse_other_name(folder, base_model)
    scores = _is_judge(folder)
    try:
        refuse_other_base(folder, digest)
    except UserFault as fault:
        raise _as_base_fault(fault) from fault
    try:
        checked = weights_checked(base)
        model = (fitted_scoring if scores else fitted)(checked.architecture, checked.tensors)
        if not any((folder / name).exists() for name in _TOKENIZERS):
            checked_chat(base, None, checked.embeddings).save(folder)
    except BaseFault as fault:
        raise base_fault(base_model, fault.message, fault.remedy) from fault
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=".*non-meta parameter.*"
            )  # the model has shapes and no weights, on purpose
            read_adapter(model, folder, trainable=False)
    except UserFault as fault:
        raise _as_base_fault(fault) from fault
    return checked_chat(folder, None, checked.embeddings)


def _as_base_fault(fault: UserFault) -> BaseFault:
    reason = fault.reasons[0]
    return BaseFault(reason.message, reason.remedy)


def _refuse_code(folder: Path) -> None:
    if brings_code(folder):
        raise BaseFault("its configuration names code that a loader would run (auto_map)", _NO_CODE)


def _refuse_other_name(folder: Path, base_model: str) -> None:
    """Raise BaseFault if both the adapter and the request name a repository of the hub, and not the same."""
    told, asked = _read(folder / CONFIG).get("base_model_name_or_path"), base_model.partition("@")[0]
    if isinstance(told, str) and _HUB_ID.fullmatch(told) and _HUB_ID.fullmatch(asked) and told.lower() != asked.lower():
        what = f"its {CONFIG} says that it was trained on {told}, and the base model that is named is {shown(asked)}"
        raise BaseFault(what, f"name {told}; if both are the same model, write that into {CONFIG}")


def _is_judge(folder: Path) -> bool:
    """Whether it is an adapter of a reward model. Raises BaseFault if its two files do not agree about it."""
    scores = _read(folder / CONFIG).get("task_type") == TASK
    if scores != (_read(folder / RECORD).get(SCORES_ANSWERS) == "true"):
        what = f"its {CONFIG} says that it {'scores answers' if scores else 'writes answers'}, and its {RECORD} does not"
        raise BaseFault(
            what, "import an adapter that writes answers, or a reward model that was exported from a registry like this"
        )
    return scores


def _read(file: Path) -> dict[str, object]:
    """Return the JSON object in a file; empty if there is none, which whoever needs it reports."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
