"""Step `prepare`: reads the data set, validates it row by row and stores it, and checks the base model."""

import hashlib
import json
import logging
import tempfile
from pathlib import Path

from schemas.jobs import StepResult
from schemas.lines import split_file
from schemas.reasons import Reason
from schemas.results import (
    BASE_MODEL_SHA256,
    CHAT_TEMPLATE_SHA256,
    DATASET,
    DATASET_LAYOUT,
    DATASET_SHA256,
    PREFERENCES,
)
from schemas.steps import PrepareSettings
from services.chassis.executor.child import Context, Stopping, UserFault
from services.chassis.storage.digests import file_sha256
from services.chassis.storage.sources.models import brings_code
from services.trainer.data.prepared import prepare_rows
from services.trainer.data.sources import read
from services.trainer.modelling.base_files import base_digest, base_fault, base_folder
from services.trainer.modelling.chat import Chat, ChatFault

_LOG = logging.getLogger(__name__)


def prepare(context: Context) -> StepResult:
    """Make the `dataset` artifact. Raises UserFault with every kind of fault found, each with its rows and remedy."""
    settings = context.task.settings
    if not isinstance(settings, PrepareSettings):
        raise TypeError(f"settings of kind {settings.kind} do not prepare")
    base = base_folder(settings.base_model, context.task)
    chat, context_length = _checked(base, settings)
    dataset = settings.dataset
    facts = {BASE_MODEL_SHA256: base_digest(base, context), CHAT_TEMPLATE_SHA256: chat.template_sha256}
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as second:
        folder, preferences = Path(name), Path(second)
        source = read(dataset, context.task.cache, context.task.allowed)

        def watch(done: int, of: int) -> None:
            if context.stopping:
                raise Stopping
            context.progress(done, of, "rows")

        made = prepare_rows(source, dataset, settings.learns, chat, settings.max_length, folder, preferences, watch)
        digests = {split: file_sha256(folder / split_file(split)) for split in made.splits}
        facts[DATASET_SHA256] = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
        facts[DATASET_LAYOUT] = made.reading.words
        described = {
            "reference": dataset.reference, "sha256": digests, **facts, "max_length": settings.max_length,
            "context_length": context_length, "notes": made.notes, **made.metrics,
        }  # fmt: skip
        (folder / "dataset.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        outputs = {DATASET: context.store.put(folder)}
        if settings.learns != "answers":
            outputs[PREFERENCES] = context.store.put(preferences)
    for note in (made.reading.words, *made.notes):
        _LOG.info("%s", note)
    return StepResult(outputs=outputs, metrics=dict(made.metrics), facts=facts)


def _checked(base: Path, settings: PrepareSettings) -> tuple[Chat, int | None]:
    """Return the base model's chat format and context length in tokens. Raises UserFault if the model cannot be trained."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    def fault(message: str, remedy: str) -> UserFault:
        return base_fault(settings.base_model, message, remedy)

    try:
        config = AutoConfig.from_pretrained(str(base), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library raises whatever its parsers raise
        if brings_code(base):
            raise fault(
                "it needs its own code, which is never run", "name a model whose architecture is part of transformers"
            ) from error
        what = f"its config.json cannot be read ({type(error).__name__})"
        raise fault(what, "name a folder that transformers can load") from error
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise fault("models of its type do not generate text", "name a causal language model")
    if not any(base.glob("*.safetensors")):
        raise fault("it has no weights in safetensors", "convert it: other formats can run code when they are loaded")
    try:
        chat = Chat(base)
    except ChatFault as error:
        raise fault(str(error), "name a model that was tuned for chats, or add a chat template to its tokenizer") from error
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and settings.max_length > longest:
        raise UserFault(
            Reason(
                field="training.max_length",
                value=str(settings.max_length),
                message=f"the base model reads {longest} tokens at most",
                remedy=f"set training.max_length to {longest} or less",
            )
        )
    return chat, longest
