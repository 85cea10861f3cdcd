"""Runs a `register` step: verifies the artifact, refuses forbidden files in it, and lets the domain number the version.

Files are read in a thread; nothing here needs a separate process.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from pydantic import JsonValue

from schemas.answers import json_object
from schemas.artifacts import ArtifactRef, Manifest
from schemas.jobs import StepFault, StepRequested
from schemas.models import ModelRegistered
from schemas.reasons import Reason
from schemas.results import ADAPTER, MODEL
from schemas.steps import RegisterSettings
from services.chassis.executor.folders import cache_of
from services.chassis.executor.inputs import corrupt_input
from services.chassis.executor.runner import Completed, Failed, Outcome, UnderLocks, Work, WorkContext
from services.chassis.kernel.aggregate import States
from services.chassis.storage.artifacts.errors import MANIFEST, ArtifactCorrupt, ArtifactRefused
from services.chassis.storage.artifacts.store import ArtifactStore
from services.chassis.storage.model_files import ALLOWED
from services.registry.domain.lineage import Artifact, is_evaluated, lineage_of, metrics_of, parent_of, purpose_of
from services.registry.domain.registering import OtherPurpose, VersionRefused, further_rows, register, rows_of

_WEIGHTS = "model.safetensors"
REQUIRED: Mapping[str, Sequence[Sequence[str]]] = {
    ADAPTER: (("adapter_config.json",), ("adapter_model.safetensors",)),
    MODEL: (("config.json",), (_WEIGHTS, f"{_WEIGHTS}.index.json", "model.gguf")),
}
"""Files that an artifact must contain, by the input that it is: of each group one."""
RECIPE = "training.json"
"""The file in which the trainer records how an adapter was made."""
_RECIPE_LIMIT = 64 * 1024


class RegistrationRefused(Exception):
    """The artifact may not be registered; the requester gets the reason."""

    def __init__(self, value: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.value, self.message, self.remedy = value, message, remedy


class Registrar:
    """The registry's StepRunner."""

    async def run(self, work: Work, context: WorkContext) -> Outcome:
        """Verify in a thread, then number and publish the version under the locks of the model."""
        request = work.request
        settings, name = request.settings, ADAPTER if ADAPTER in request.inputs else MODEL
        artifact = request.inputs.get(name)
        if not isinstance(settings, RegisterSettings) or artifact is None:
            raise TypeError(
                f"step {request.step} of kind {request.kind} has no register settings, or neither adapter nor model"
            )
        try:
            configuration = await asyncio.to_thread(
                _examine, context.settings.artifacts_uri, name, artifact, cache_of(context.settings.home)
            )
        except ArtifactCorrupt as error:
            return Failed(corrupt_input(error, request.inputs) or _user_fault(error, name, artifact))
        except (RegistrationRefused, ArtifactRefused) as error:
            return Failed(_user_fault(error, name, artifact))
        wanted = _wanted(request, settings, name, configuration)
        return UnderLocks(
            refs=rows_of(request, settings.model, settings.alias),
            decide=lambda states, _now: _decide(request, settings, wanted, states),
            further=lambda states: further_rows(request, settings.model, settings.alias, states),
        )


def _decide(
    request: StepRequested, settings: RegisterSettings, wanted: ModelRegistered, states: States
) -> Completed | Failed:
    try:
        return Completed(*register(request, settings.model, settings.alias, wanted, states))
    except (OtherPurpose, VersionRefused) as error:
        return Failed(StepFault(cause="user", message=str(error), reasons=(error.reason,)))


def _wanted(
    request: StepRequested, settings: RegisterSettings, name: str, configuration: Mapping[str, JsonValue]
) -> ModelRegistered:
    made = Artifact(name, request.inputs[name])
    parent = parent_of(made, request.results)
    lineage = lineage_of(request, settings, configuration)
    return ModelRegistered(
        model=settings.model,
        version=settings.version or "",
        artifact=made.ref,
        lineage=lineage,
        purpose=purpose_of(lineage),
        metrics=metrics_of(made, request.results),
        kind=name,
        parent=parent.ref if parent else None,
        parent_metrics=metrics_of(parent, request.results) if parent else {},
        evaluated=is_evaluated(made, request.results),
    )


def _examine(store_uri: str, name: str, artifact: ArtifactRef, cache: Path) -> dict[str, JsonValue]:
    """Verify every file, refuse what could be code, and return the recipe.

    Raises RegistrationRefused and the store's errors.
    """
    folder = ArtifactStore(store_uri).fetch(artifact, cache)
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    check_files(manifest, REQUIRED[name])
    for entry in manifest.files:
        if entry.path.endswith("config.json"):
            check_configuration(entry.path, _object(folder / entry.path))
    return _recipe(folder / RECIPE)


def _recipe(path: Path) -> dict[str, JsonValue]:
    if not path.exists():
        return {}
    size = path.stat().st_size
    if size > _RECIPE_LIMIT:
        raise RegistrationRefused(
            RECIPE, f"{size} bytes are more than the {_RECIPE_LIMIT} that an event can carry", "shorten it"
        )
    found = _object(path)
    if found is None:
        raise RegistrationRefused(RECIPE, "it is not a JSON object", "register the output of a train step")
    return found


def _object(path: Path) -> dict[str, JsonValue] | None:
    """The JSON object in a file; None if it has something else."""
    return json_object(path.read_text(encoding="utf-8", errors="replace"))


def check_configuration(path: str, content: Mapping[str, JsonValue] | None) -> None:
    """Raise RegistrationRefused for a configuration that names code to load with the model."""
    if content and content.get("auto_map"):
        raise RegistrationRefused(
            path,
            "`auto_map` names code that a loader would download and run",
            "use a base model whose architecture and tokenizer are part of the library",
        )


def check_files(manifest: Manifest, required: Sequence[Sequence[str]]) -> None:
    """Raise RegistrationRefused for a file that may contain code or that no model needs, and for a missing file."""
    paths = {entry.path for entry in manifest.files}
    for path in sorted(paths):
        if PurePosixPath(path).suffix not in ALLOWED:
            raise RegistrationRefused(
                path,
                "a file of this type may not be in a model: it could run code when it is loaded, or it is not part of a "
                "model",
                f"use only {', '.join(sorted(ALLOWED))}",
            )
    for names in required:
        if not paths.intersection(names):
            what = "the file is missing from the artifact"
            raise RegistrationRefused(names[0], what, "register the output of a train or compress step")


def _user_fault(error: Exception, name: str, artifact: ArtifactRef) -> StepFault:
    field = f"inputs.{name}"
    if isinstance(error, RegistrationRefused):
        reason = Reason(field=field, value=error.value, message=error.message, remedy=error.remedy)
    else:
        remedy = "run the step that made it again, and check who can write to the artifact store"
        reason = Reason(field=field, value=artifact.uri, message=str(error), remedy=remedy)
    return StepFault(cause="user", message=str(reason), reasons=(reason,))
