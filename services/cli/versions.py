"""Finds a registered version over HTTP, and brings its files with proof of every byte."""

from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from schemas.artifacts import ArtifactRef
from services.chassis.storage.artifacts.errors import ArtifactCorrupt
from services.chassis.storage.artifacts.store import ArtifactStore
from services.cli.edge import Edge
from services.cli.exits import Exit, stop_with
from services.cli.printable import printable
from services.cli.settings import CliSettings
from services.registry.views import VersionView


def model_path(model_id: str) -> str:
    """Return the route of a model, or of the version that `model_id` names."""
    return f"/models/{quote(model_id, safe='')}"


def version_of(edge: Edge, model_id: str) -> VersionView:
    """Return the version that `model_id` names. Raises RequestRefused."""
    return edge.get(VersionView, model_path(model_id))


def fetched(cache: Path, artifact: ArtifactRef) -> Path:
    """Return the verified files of an artifact, wherever its store is. Raises the store's errors."""
    return ArtifactStore(artifact.uri).fetch(artifact, cache)


def files_of(version: VersionView, settings: CliSettings) -> Path:
    """Return the version's files after checking their digests; ends the command if they differ from what was registered, or are
    removed."""
    if version.files_removed_at is not None:
        stop_with(Exit.FAILED, files_removed(version.id, version.files_removed_at, version.state_reason))
    try:
        return fetched(settings.cache, version.artifact)
    except ArtifactCorrupt as error:
        stop_with(Exit.FAILED, f"{version.id} is not what was registered: {error}")


def files_removed(version: str, at: datetime, reason: str) -> str:
    """Return the sentence that the files of a version are removed."""
    why = f"the version was deleted: {reason}" if reason else "the version was deleted"
    return printable(f"the files of {version} were removed at {at:%Y-%m-%d %H:%M:%S %Z}, because {why}")
