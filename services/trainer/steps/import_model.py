"""Step `import`: copies an adapter or a whole model that was made elsewhere, checks the copy, and stores it as an artifact."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.reasons import Reason, shown
from schemas.results import (
    ADAPTER,
    BASE_MODEL_SHA256,
    CHAT_TEMPLATE_SHA256,
    FILES_LEFT_OUT,
    IMPORTED_AT,
    IMPORTED_FROM,
    IMPORTED_REVISION,
    LICENCE,
    MODEL,
)
from schemas.steps import ImportSettings
from services.chassis.executor.child import Context, Stopping, UserFault
from services.chassis.storage.references import ReferenceFault, resolve_folder
from services.trainer.importing.card import licence_of
from services.trainer.importing.checking import checked_adapter, checked_model
from services.trainer.importing.choosing import Chosen, chosen
from services.trainer.importing.copying import copied
from services.trainer.modelling.base_files import BaseFault, base_fault
from services.trainer.steps.loading import model_files

_SNAPSHOTS = "snapshots"
"""The folder in which the hub's cache has a folder for each commit."""


def import_model(context: Context) -> StepResult:
    """Make the `adapter` or `model` artifact. Raises UserFault for files that no job could use, or that may not be read."""
    settings = context.task.settings
    if not isinstance(settings, ImportSettings):
        raise TypeError(f"settings of kind {settings.kind} do not import")
    try:
        return _imported(context, settings)
    except (BaseFault, ReferenceFault) as fault:
        message = fault.message if isinstance(fault, BaseFault) else fault.reason
        reason = Reason(field="import_from", value=shown(settings.source), message=message, remedy=fault.remedy)
        raise UserFault(reason) from fault


def _imported(context: Context, settings: ImportSettings) -> StepResult:
    task = context.task
    source = resolve_folder(settings.source, task.cache, task.allowed)
    files = chosen(source)
    _refuse_base(context, settings, files)

    def watch(done: int, of: int) -> None:
        if context.stopping:
            raise Stopping
        context.progress(done, of, "bytes")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied(source, files.files, folder, task.cache, task.allowed, watch)
        facts = _facts(settings, source, files)
        if files.adapter:
            base, digest, _ = model_files(context, settings.base_model)
            chat = checked_adapter(folder, base, settings.base_model, digest)
        else:
            chat = checked_model(folder)
        stored = context.store.put(folder)
    outputs: dict[str, ArtifactRef] = {ADAPTER: stored, **task.inputs} if files.adapter else {MODEL: stored}
    if files.adapter and MODEL not in task.inputs:
        facts[BASE_MODEL_SHA256] = digest
    facts |= {CHAT_TEMPLATE_SHA256: chat.template_sha256, IMPORTED_AT: datetime.now(UTC).isoformat(timespec="seconds")}
    return StepResult(outputs=outputs, metrics={"files": float(len(files.files)), "bytes": float(stored.size)}, facts=facts)


def _facts(settings: ImportSettings, source: Path, files: Chosen) -> dict[str, str]:
    revision = source.name if source.parent.name == _SNAPSHOTS else None
    told = {
        IMPORTED_FROM: settings.source, IMPORTED_REVISION: revision, LICENCE: licence_of(source), FILES_LEFT_OUT: files.remark,
    }  # fmt: skip
    return {name: value for name, value in told.items() if value is not None}


def _refuse_base(context: Context, settings: ImportSettings, files: Chosen) -> None:
    """Raise UserFault if the request names no base model for an adapter, or one for a whole model."""
    same = settings.base_model == settings.source
    if files.adapter and same:
        what = "what is imported is an adapter, which belongs to a base model"
        raise base_fault(settings.base_model, what, "name the base model that it was trained on (--base)")
    if not files.adapter and (not same or context.task.inputs):
        what = "what is imported is a whole model, which is its own base model"
        raise base_fault(settings.base_model, what, "name the same as in import_from (leave out --base)")
    if ADAPTER in context.task.inputs:
        what = "that version is an adapter, and an adapter is trained on a whole model"
        raise base_fault(settings.base_model, what, "name the base model of that version, or merge it first")
