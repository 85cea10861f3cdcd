"""Step `compress`: makes a whole model from an adapter or a model, and stores it with all that is needed to serve and audit it."""

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from schemas.jobs import StepResult
from schemas.recipes.compression import CompressionMethod
from schemas.results import BASE_MODEL_SHA256, CHAT_TEMPLATE_SHA256, MODEL
from schemas.steps import CompressSettings
from services.chassis.executor.child import Context
from services.trainer.compression.made import Compression, Made
from services.trainer.compression.merge import merge
from services.trainer.modelling.adapter import RECORD
from services.trainer.modelling.chat import Chat
from services.trainer.steps.loading import LoadedModel, load

METHODS: Mapping[CompressionMethod, Callable[[Compression], Made]] = {"merge": merge}


def compress(context: Context) -> StepResult:
    """Make the `model` artifact: weights, configuration, tokenizer, chat template and the record of how it was made."""
    step = context.task.settings
    if not isinstance(step, CompressSettings):
        raise TypeError(f"settings of kind {step.kind} do not compress")
    loaded = load(context, step.base_model, "fp32", step.chat_template)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = METHODS[step.compression.method](Compression(context, loaded, step.compression, folder))
        Chat(loaded.adapter or loaded.base, step.chat_template).save(folder)
        recorded = json.dumps(_record(loaded, step), indent=2, sort_keys=True)
        (folder / RECORD).write_text(recorded + "\n", encoding="utf-8")
        artifact = context.store.put(folder)
    return StepResult(
        outputs={MODEL: artifact},
        metrics={"size_bytes": float(artifact.size), **made.metrics},
        facts={CHAT_TEMPLATE_SHA256: loaded.chat.template_sha256, **made.facts},
    )


def _record(loaded: LoadedModel, step: CompressSettings) -> dict[str, Any]:
    """Return how the parent was trained, if it says so, and how it was compressed."""
    before = (loaded.adapter or loaded.base) / RECORD
    trained = json.loads(before.read_bytes()) if before.exists() else {}
    compressions = [*trained.get("compressions", ()), step.compression.model_dump(mode="json")]
    return {
        **trained,
        "base_model": step.base_model,
        BASE_MODEL_SHA256: loaded.digest,
        CHAT_TEMPLATE_SHA256: loaded.chat.template_sha256,
        "compressions": compressions,
    }
