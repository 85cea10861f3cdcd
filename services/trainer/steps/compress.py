"""Step `compress`: makes a whole model from an adapter or a model, compares both, and stores what serving and audit need."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from schemas.jobs import StepResult
from schemas.lines import Row
from schemas.recipes.compression import CompressionMethod, CompressionSettings
from schemas.results import BASE_MODEL_SHA256, CHAT_TEMPLATE_SHA256, COMPRESSION, DATASET, MODEL, PRECISION
from schemas.steps import CompressSettings
from services.chassis.executor.child import Context, Stopping
from services.language_models.chat_format.chat import Chat
from services.language_models.precision import compute_dtype
from services.trainer.compression.gguf_file import write_gguf
from services.trainer.compression.int8 import int8
from services.trainer.compression.made import Compression, unmerged
from services.trainer.compression.merge import merge
from services.trainer.compression.observed import compared, observe
from services.trainer.compression.proof import difference, refuse_difference
from services.trainer.compression.prune import prune
from services.trainer.compression.weights import wanted_dtype, weights_size
from services.trainer.data.rows import rows_of
from services.trainer.modelling.adapter import RECORD
from services.trainer.modelling.stored_model import is_quantised, load_whole
from services.trainer.steps.loading import LoadedModel, fetched, load

_METHODS: Mapping[CompressionMethod, Callable[[Compression], None]] = {
    "merge": merge,
    "int8": int8,
    "prune": prune,
    "gguf": write_gguf,
}
_EQUAL = ("merge", "gguf")
"""Methods whose result computes what its parent computes."""
_STAGES = 3


def compress(context: Context) -> StepResult:
    """Make the `model` artifact: weights, configuration, tokenizer, chat template and the record of how it was made.

    Raises UserFault if a merged model computes something else than base model and adapter.
    """
    step = context.task.settings
    if not isinstance(step, CompressSettings):
        raise TypeError(f"settings of kind {step.kind} do not compress")
    settings = step.compression
    loaded = load(context, step.base_model, "fp32", step.chat_template)
    dtype = wanted_dtype(settings, loaded.base)
    stored_as = _stored_as(settings, dtype)
    rows = _held_out(context, settings.rows)
    _stage(context, 0)
    parent = observe(context, loaded.chat, unmerged(loaded), rows)
    _stage(context, 1)
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as other:
        folder, texts = Path(name), Path(other)
        Chat(loaded.adapter or loaded.base, step.chat_template).save(texts)
        _METHODS[settings.method](Compression(loaded, settings, dtype, parent.logits, texts, folder))
        _stage(context, 2)
        made = observe(context, loaded.chat, _result(folder, loaded.device), rows)
        found = difference(made.logits, parent.logits)
        if settings.method in _EQUAL:
            refuse_difference(found, stored_as, settings.tolerance)
        shutil.copytree(texts, folder, dirs_exist_ok=True)
        recorded = json.dumps(_record(loaded, step), indent=2, sort_keys=True)
        (folder / RECORD).write_text(recorded + "\n", encoding="utf-8")
        size, parent_size = weights_size(folder), weights_size(loaded.base, loaded.adapter)
        _stage(context, 3)
        artifact = context.store.put(folder)
    if settings.method == "gguf":
        made = replace(made, tokens_per_second=None)  # transformers, not llama.cpp, computed it
    metrics = {
        "logits_difference": found,
        "size_bytes": float(size),
        "parent_size_bytes": float(parent_size),
        "size_ratio": size / parent_size,
        **compared(parent, made),
    }
    facts = {
        CHAT_TEMPLATE_SHA256: loaded.chat.template_sha256,
        PRECISION: stored_as,
        COMPRESSION: settings.method,
    }
    return StepResult(outputs={MODEL: artifact}, metrics=metrics, facts=facts)


def _stored_as(settings: CompressionSettings, dtype: torch.dtype) -> str:
    """Return the name of the type of most weights."""
    named = {"int8": "int8", "gguf": settings.gguf_type}
    return named.get(settings.method, str(dtype).removeprefix("torch."))


def _stage(context: Context, done: int) -> None:
    if context.stopping:
        raise Stopping
    context.progress(done, _STAGES, "stages")


def _held_out(context: Context, limit: int) -> list[Row]:
    """Return the rows on which parent and result are compared; none if the step has no data set, or that no test split."""
    if DATASET not in context.task.inputs:
        return []
    return rows_of(fetched(context, DATASET), "test")[:limit]


def _result(folder: Path, device: torch.device) -> Any:
    return load_whole(folder, compute_dtype("auto", device) if is_quantised(folder) else torch.float32, device)


def _record(loaded: LoadedModel, step: CompressSettings) -> dict[str, Any]:
    """Return how the parent was trained, if it says so, and how it was compressed."""
    made = loaded.adapter or (loaded.base if loaded.made else None)  # a base model of others may have any file of this name
    trained = json.loads((made / RECORD).read_bytes()) if made and (made / RECORD).exists() else {}
    compressions = [*trained.get("compressions", ()), step.compression.model_dump(mode="json")]
    return {
        **trained,
        "base_model": step.base_model,
        BASE_MODEL_SHA256: loaded.digest,
        CHAT_TEMPLATE_SHA256: loaded.chat.template_sha256,
        "compressions": compressions,
    }
