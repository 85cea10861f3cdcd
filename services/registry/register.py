"""Runs a `register` step: verifies the artifact, refuses forbidden files in it, and lets the domain number the version.

Files are read in a thread; nothing here needs a separate process.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pydantic import JsonValue

from schemas.answers import json_object
from schemas.artifacts import ArtifactRef, Manifest
from schemas.jobs import StepFault, StepRequested
from schemas.models import ModelRegistered
from schemas.reasons import Reason
from schemas.results import ADAPTER
from schemas.steps import RegisterSettings
from services.chassis.executor.folders import cache_of
from services.chassis.executor.inputs import corrupt_input
from services.chassis.executor.runner import Completed, Failed, Outcome, UnderLocks, Work, WorkContext
from services.chassis.storage.artifacts.errors import MANIFEST, ArtifactCorrupt, ArtifactRefused
from services.chassis.storage.artifacts.store import ArtifactStore
from services.registry.domain.lineage import lineage_of, metrics_of
from services.registry.domain.models import model_ref, register, registration_ref

ALLOWED = frozenset({".safetensors", ".json", ".jsonl", ".jinja", ".txt", ".model", ".md"})
"""Files that a model may contain: weights without code, configuration, tokenizer, template, notes."""
REQUIRED = ("adapter_config.json", "adapter_model.safetensors")
RECIPE = "training.json"
"""The file in which the trainer records how an adapter was made."""
_RECIPE_LIMIT = 64 * 1024


class RegistrationRefused(Exception):
    """The artifact may not be registered; the requester gets the reason."""

    def __init__(self, value: str, message: str, remedy: str) -> None:
        self.reason = Reason(field="inputs.adapter", value=value, message=message, remedy=remedy)
        super().__init__(str(self.reason))


class Registrar:
    """The registry's StepRunner."""

    async def run(self, work: Work, context: WorkContext) -> Outcome:
        """Verify in a thread, then number and publish the version under the locks of the model."""
        request = work.request
        settings, adapter = request.settings, request.inputs.get(ADAPTER)
        if not isinstance(settings, RegisterSettings) or adapter is None:
            raise TypeError(f"step {request.step} of kind {request.kind} has no register settings or no adapter")
        try:
            configuration = await asyncio.to_thread(
                _examine, context.settings.artifacts_uri, adapter, cache_of(context.settings.home)
            )
        except ArtifactCorrupt as error:
            return Failed(corrupt_input(error, request.inputs) or _user_fault(error, adapter))
        except (RegistrationRefused, ArtifactRefused) as error:
            return Failed(_user_fault(error, adapter))
        wanted = _wanted(request, settings, adapter, configuration)
        return UnderLocks(
            refs=(model_ref(settings.model), registration_ref(request.job_id, request.step)),
            decide=lambda states, _now: Completed(*register(request, settings.model, settings.alias, wanted, states)),
        )


def _wanted(
    request: StepRequested, settings: RegisterSettings, adapter: ArtifactRef, configuration: Mapping[str, JsonValue]
) -> ModelRegistered:
    return ModelRegistered(
        model=settings.model,
        version="",
        artifact=adapter,
        lineage=lineage_of(request, settings, configuration),
        metrics=metrics_of(adapter, request.results),
    )


def _examine(store_uri: str, adapter: ArtifactRef, cache: Path) -> dict[str, JsonValue]:
    """Verify every file, refuse what could be code, and return the recipe.

    Raises RegistrationRefused and the store's errors.
    """
    folder = ArtifactStore(store_uri).fetch(adapter, cache)
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    check_files(manifest)
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


def check_files(manifest: Manifest) -> None:
    """Raise RegistrationRefused for a file that may contain code or that no adapter needs, and for a missing file."""
    paths = {entry.path for entry in manifest.files}
    for path in sorted(paths):
        if PurePosixPath(path).suffix not in ALLOWED:
            raise RegistrationRefused(
                path,
                "a file of this type may not be in a model: it could run code when it is loaded, or it is not part of an "
                "adapter",
                f"use only {', '.join(sorted(ALLOWED))}",
            )
    for path in REQUIRED:
        if path not in paths:
            raise RegistrationRefused(path, "the file is missing from the adapter", "register the output of a train step")


def _user_fault(error: Exception, adapter: ArtifactRef) -> StepFault:
    if isinstance(error, RegistrationRefused):
        reason = error.reason
    else:
        remedy = "run the step that made it again, and check who can write to the artifact store"
        reason = Reason(field="inputs.adapter", value=adapter.uri, message=str(error), remedy=remedy)
    return StepFault(cause="user", message=str(reason), reasons=(reason,))
