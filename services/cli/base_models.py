"""Finds a base model for commands that work on this machine without a service."""

from pathlib import Path
from urllib.parse import quote

from schemas.models import is_whole
from schemas.versions import version_reference
from services.chassis.executor.folders import cache_of
from services.chassis.storage.artifacts.errors import ArtifactCorrupt
from services.chassis.storage.artifacts.store import ArtifactStore
from services.chassis.storage.references import ReferenceFault, resolve_model
from services.chassis.storage.sources.allowed import AllowedSources
from services.chassis.storage.sources.settings import SourceSettings
from services.cli.edge import Edge
from services.cli.exits import Exit, stop_with
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.registry.views import VersionView


def local_base(reference: str, field: str = "base_model") -> tuple[Path, Path, AllowedSources]:
    """Return the base model's folder, the cache, and the sources that jobs may name. Ends the command if there is none.

    The base model of a registered version is the version's files if it is a whole model, else the one that its adapter belongs to.
    """
    cli = CliSettings()
    cache, allowed = cache_of(cli.home), SourceSettings().allowed(cli.home, cli.cache)
    while version_reference(reference) is not None:
        version = _registered(reference, cli)
        if is_whole(version.artifact, version.lineage):
            return _fetched(version, cli), cache, allowed
        reference = version.lineage.base_model
    try:
        return resolve_model(reference, cache, allowed), cache, allowed
    except ReferenceFault as fault:
        stop_with(Exit.USAGE, f"{field} {reference}: {fault}")


def _registered(reference: str, cli: CliSettings) -> VersionView:
    with http_address(cli) as address, Edge(address) as edge:
        return edge.get(VersionView, f"/models/{quote(reference, safe='')}")


def _fetched(version: VersionView, cli: CliSettings) -> Path:
    try:
        return ArtifactStore(version.artifact.uri).fetch(version.artifact, cli.cache)
    except ArtifactCorrupt as error:
        stop_with(Exit.FAILED, f"{version.id} is not what was registered: {error}")
