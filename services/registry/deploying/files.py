"""Checks the files of a target before anything serves them: digests, the base model, the kinds of files."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from schemas.lines import Message, Prediction
from schemas.results import BASE_MODEL_SHA256
from services.chassis.executor.folders import cache_of
from services.chassis.process.logging import get_logger
from services.chassis.settings import ServiceSettings
from services.chassis.storage.artifacts.errors import ArtifactCorrupt, ArtifactMissing
from services.chassis.storage.artifacts.store import ArtifactStore
from services.chassis.storage.references import ReferenceFault, folder_digest, resolve_model
from services.chassis.storage.sources.allowed import AllowedSources
from services.chassis.storage.sources.models import model_refusal
from services.registry.deploying.driver import Target
from services.registry.deploying.faults import Refused

_RECORD = "training.json"
_log = get_logger(__name__)
_PROBES = 3
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where files may come from."""

    artifacts: str
    """URI of the artifact store."""
    cache: Path
    allowed: AllowedSources


def sources_of(settings: ServiceSettings) -> Sources:
    """Return those of a service: its artifacts, its cache, and what its jobs may name."""
    allowed = settings.sources.allowed(settings.home, settings.cache)
    return Sources(settings.artifacts_uri, cache_of(settings.home), allowed)


@dataclass(frozen=True, slots=True)
class Probe:
    """A question whose likeliest answer an evaluation of the version recorded."""

    messages: tuple[Message, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """The verified files of a version, without its base model."""

    folder: Path
    """Folder of the adapter or of the whole model."""
    trained_on: str | None
    """Digest of the base model that the training recorded beside an adapter; None if nothing is recorded."""
    probes: tuple[Probe, ...]


@dataclass(frozen=True, slots=True)
class TargetFiles:
    """The verified files of a target."""

    base: Path
    """Folder of the model that a process loads first."""
    digest: str
    """What that folder contains; one process serves all targets with the same."""
    folder: Path
    """Folder of the adapter, or again of the model."""
    kind: Literal["adapter", "model"]
    probes: tuple[Probe, ...]


def verified(target: Target, sources: Sources) -> TargetFiles:
    """Fetch a target's files and those of its base model, and check them. Raises Refused."""
    version = version_files(target, sources)
    if target.kind == "model":
        return TargetFiles(version.folder, target.artifact.sha256, version.folder, "model", version.probes)
    base = _base(target, sources)
    digest = folder_digest(base, sources.cache)
    for recorded in (target.base_model_sha256, version.trained_on):
        if recorded is not None and recorded != digest:
            what = f"{target.served} was made on a base model with digest {recorded}, but {target.base_model} has {digest}"
            raise Refused("WrongBase", f"{what}; restore the files of the base model, or train the version again")
    return TargetFiles(base, digest, version.folder, "adapter", version.probes)


def version_files(target: Target, sources: Sources) -> VersionFiles:
    """Fetch the files of a target's version and check them; the base model is not read. Raises Refused."""
    folder, probes = _artifact(target, sources), _probes(target, sources)
    if target.kind == "model":
        if refusal := model_refusal(folder):
            raise Refused("Unloadable", f"{target.served}: {refusal.reason}; {refusal.remedy}")
        return VersionFiles(folder, None, probes)
    if missing := [name for name in _ADAPTER if not (folder / name).is_file()]:
        what = f"{target.served} is no adapter in PEFT's layout: it has no {missing[0]}"
        raise Refused("Unloadable", f"{what}; deploy a version that a training made, or an imported adapter")
    return VersionFiles(folder, _trained_on(folder), probes)


def _artifact(target: Target, sources: Sources) -> Path:
    try:
        return ArtifactStore(sources.artifacts).fetch(target.artifact, sources.cache)
    except ArtifactMissing as error:
        raise Refused("ArtifactMissing", str(error)) from error
    except ArtifactCorrupt as error:
        raise Refused("DigestMismatch", str(error)) from error
    except OSError as error:
        raise _unavailable(f"the artifact of {target.served}", error) from error


def _probes(target: Target, sources: Sources) -> tuple[Probe, ...]:
    """Return some recorded answers; none where the retention policy has removed them. Raises Refused for altered ones."""
    if target.predictions is None:
        return ()
    try:
        folder = ArtifactStore(sources.artifacts).fetch_remaining(target.predictions, sources.cache)
        with (folder / Prediction.FILE).open("rb") as lines:
            read = (Prediction.model_validate_json(line) for line in lines)
            asked = (Probe(one.messages, one.greedy.strip()) for one in read if one.messages and one.greedy.strip())
            return tuple(itertools.islice(asked, _PROBES))
    except ArtifactMissing:
        _log.warning("no recorded answers to compare with", served=target.served, predictions=target.predictions.uri)
        return ()
    except OSError as error:
        raise _unavailable(f"the recorded answers of {target.served}", error) from error
    except (ArtifactCorrupt, ValueError) as error:
        what = f"the recorded answers of {target.served} cannot be read: {error}"
        raise Refused("DigestMismatch", f"{what}; restore the artifact, or evaluate the version again") from error


def _base(target: Target, sources: Sources) -> Path:
    try:
        return resolve_model(target.base_model, sources.cache, sources.allowed)
    except ReferenceFault as fault:
        raise Refused("BaseMissing", f"the base model {target.base_model}: {fault}") from fault
    except OSError as error:
        raise _unavailable(f"the base model {target.base_model}", error) from error


def _unavailable(what: str, error: OSError) -> Refused:
    """Return that files cannot be had at present: their store is away, or this machine has no room for them or cannot read them."""
    return Refused(
        "FilesUnavailable", f"{what} cannot be had now: {error}; see to the store or the disk: it is tried again"
    )


def _trained_on(folder: Path) -> str | None:
    """Return the digest of the base model that the training recorded beside an adapter; None if there is no record."""
    try:
        found = json.loads((folder / _RECORD).read_bytes()).get(BASE_MODEL_SHA256)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise Refused("WrongBase", f"its {_RECORD} cannot be read; train the version again") from error
    return found if isinstance(found, str) else None
