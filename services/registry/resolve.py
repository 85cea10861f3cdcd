"""Runs a `resolve` step: finds the registered version that a job starts from, or that judges, or the registered data set that it names,
verifies its files, and says what it is made of.

A version never changes. An alias may move, so what it named is a fact of the step's result, which later attempts and replays read.
"""

import asyncio
from pathlib import Path
from typing import NamedTuple

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepFault, StepResult
from schemas.models import ModelRegistered, is_whole
from schemas.reasons import first_of
from schemas.results import (
    ADAPTER,
    BASE_MODEL,
    BASE_MODEL_SHA256,
    ERASED_INPUTS,
    JUDGE_REFERENCE,
    JUDGE_VERSION,
    MODEL,
    RESOLVED_DATASET,
    ROOT_MODEL,
    STARTED_FROM,
    VERSION_DEPRECATED,
)
from schemas.steps import ResolveSettings
from schemas.versions import DEPRECATED, OUT_OF_USE, version_reference
from services.chassis.executor.folders import cache_of
from services.chassis.executor.runner import Completed, Failed, Outcome, Work, WorkContext
from services.chassis.process.logging import get_logger
from services.chassis.storage.artifacts.errors import ArtifactCorrupt, ArtifactRefused
from services.chassis.storage.artifacts.store import ArtifactStore
from services.registry.datasets.queries import DatasetQueries
from services.registry.datasets.resolving import artifacts_of, named_dataset
from services.registry.domain.datasets import dataset_id
from services.registry.domain.lineage import SCORES
from services.registry.queries import ModelQueries
from services.registry.unresolved import Unresolved

_log = get_logger(__name__)

_NAMED = 5
_DEEPEST = 50
"""The most versions that one starts from another."""


class _Start(NamedTuple):
    """What a version that writes answers consists of."""

    id: str
    artifacts: dict[str, ArtifactRef]
    base_model: str
    base_sha256: str | None
    """Digest of the base model's files; None if the base model is an artifact."""
    root: str

    @property
    def facts(self) -> dict[str, str]:
        found = {STARTED_FROM: self.id, BASE_MODEL: self.base_model, ROOT_MODEL: self.root}
        return found if self.base_sha256 is None else {**found, BASE_MODEL_SHA256: self.base_sha256}


class _Judge(NamedTuple):
    """What a reward model consists of."""

    id: str
    artifacts: dict[str, ArtifactRef]
    reference: str

    @property
    def facts(self) -> dict[str, str]:
        return {JUDGE_REFERENCE: self.reference, JUDGE_VERSION: self.id}


class _Data(NamedTuple):
    """What a registered data set consists of."""

    id: str
    artifacts: dict[str, ArtifactRef]
    erased: int
    """How many rows were erased from it."""

    @property
    def facts(self) -> dict[str, str]:
        erased = {ERASED_INPUTS: f"{self.erased} rows were erased from {self.id}"} if self.erased else {}
        return {RESOLVED_DATASET: self.id, **erased}


class Resolver:
    """The registry's runner of `resolve` steps."""

    def __init__(self, queries: ModelQueries, datasets: DatasetQueries) -> None:
        self._queries, self._datasets = queries, datasets

    async def run(self, work: Work, context: WorkContext) -> Outcome:
        """Find the version in the registry's own rows, and fetch its files as whoever works on it will."""
        settings = work.request.settings
        if not isinstance(settings, ResolveSettings):
            raise TypeError(f"step {work.request.step} of kind {work.request.kind} has no resolve settings")
        try:
            found = await self._found(settings)
            told = {} if isinstance(found, _Data) else await self._deprecated(found.id, settings.base_model)
            cache = cache_of(context.settings.home)
            await asyncio.to_thread(
                _verify, context.settings.artifacts_uri, found, settings.dataset or settings.base_model, cache
            )
        except Unresolved as unresolved:
            reason = unresolved.reason(settings.field)
            return Failed(StepFault(cause="user", message=str(reason), reasons=(reason,)))
        return Completed(StepResult(outputs=found.artifacts, facts={**found.facts, **told}))

    async def _deprecated(self, version_id: str, asked: str) -> dict[str, str]:
        """Return the fact that the version is deprecated, if it is. Raises Unresolved for one that is out of use."""
        name, _, number = version_id.partition("@")
        stored = await self._queries.version(name, number)
        if stored is None or stored.state not in (DEPRECATED, *OUT_OF_USE):
            return {}
        why = f"{version_id} is {stored.state}: {stored.state_reason}"
        if stored.state in OUT_OF_USE:
            raise Unresolved(asked, why, "name another version, or make this one live again: neuroweaver models state")
        _log.warning("a job uses a deprecated version", version=version_id, reason=stored.state_reason)
        return {VERSION_DEPRECATED: why}

    async def _found(self, settings: ResolveSettings) -> "_Start | _Judge | _Data":
        reference = settings.base_model
        if settings.dataset is not None:
            stored = await named_dataset(self._datasets, settings.dataset)
            return _Data(dataset_id(stored.made), artifacts_of(stored), stored.remains.rows if stored.remains else 0)
        return await (self._judge(reference) if settings.purpose == SCORES else self._start(reference, reference, 0))

    async def _judge(self, reference: str) -> _Judge:
        """Return what the reward model at `reference` consists of, with its base model if a job made that."""
        made = await self._version(reference, reference)
        named, lineage = f"{made.model}@{made.version}", made.lineage
        if made.purpose != SCORES:
            message = f"{named} writes answers: it is no reward model, and gives no scores"
            raise Unresolved(reference, message, "name a version that a training with method reward made")
        artifacts = {ADAPTER: made.artifact}
        if version_reference(lineage.base_model):
            artifacts[MODEL] = (await self._start(lineage.base_model, reference, 1)).artifacts[MODEL]
        return _Judge(named, artifacts, reference)

    async def _start(self, reference: str, asked: str, depth: int) -> _Start:
        """Return what the version at `reference` consists of; `asked` is the reference of the request, for messages."""
        made = await self._version(reference, asked)
        if depth > _DEEPEST:
            raise Unresolved(asked, f"over {_DEEPEST} versions lie between it and a base model", "name an earlier version")
        named, lineage = f"{made.model}@{made.version}", made.lineage
        if made.purpose == SCORES:
            message = f"{named} is a reward model: it scores answers and writes none"
            raise Unresolved(asked, message, "name a version that writes answers, or the base model of the reward model")
        before = await self._start(lineage.base_model, asked, depth + 1) if version_reference(lineage.base_model) else None
        root = before.root if before else lineage.base_model
        if is_whole(made.artifact, lineage):
            return _Start(named, {MODEL: made.artifact}, named, None, root)
        artifacts = {ADAPTER: made.artifact, **({MODEL: before.artifacts[MODEL]} if before else {})}
        return _Start(named, artifacts, lineage.base_model, None if before else lineage.base_model_sha256, root)

    async def _version(self, reference: str, asked: str) -> ModelRegistered:
        wanted = version_reference(reference)
        assert wanted is not None
        stored = await self._queries.version(wanted.model, wanted.version)
        if stored is not None:
            return ModelRegistered.model_validate_json(stored.registered)
        model = await self._queries.model(wanted.model)
        if model is None:
            message = f"no model is registered as {wanted.model}"
            remedy = (
                "neuroweaver models list shows the names; write ./ before a folder, and owner/name@revision for the hub"
            )
            raise Unresolved(asked, message, remedy)
        known = [*model.state.newest[::-1], *model.state.aliases]
        message = f"the model {wanted.model} has no version and no alias {wanted.version}"
        raise Unresolved(asked, message, f"name one of {first_of(known, _NAMED)}")


def _verify(store_uri: str, start: _Start | _Judge | _Data, asked: str, cache: Path) -> None:
    for artifact in start.artifacts.values():
        try:
            ArtifactStore(store_uri).fetch_remaining(artifact, cache)
        except (ArtifactCorrupt, ArtifactRefused) as error:
            message = f"the files of {start.id} are missing or damaged: {type(error).__name__}"
            raise Unresolved(asked, message, "bring back the artifact from a backup, or name another one") from error
