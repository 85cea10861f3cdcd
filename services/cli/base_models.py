"""Finds a base model for commands that work on this machine without a service."""

from pathlib import Path
from typing import NamedTuple

from schemas.models import is_whole
from schemas.recipes.feedback import JudgeSettings
from schemas.versions import version_reference
from services.chassis.executor.folders import cache_of
from services.chassis.storage.references import ReferenceFault, folder_digest, require_inside, resolve, resolve_model
from services.chassis.storage.sources.allowed import AllowedSources
from services.chassis.storage.sources.settings import SourceSettings
from services.cli.edge import Edge
from services.cli.exits import Exit, stop_with
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.cli.versions import files_of, version_of
from services.registry.views import VersionView


class LocalBase(NamedTuple):
    """A base model on this machine."""

    folder: Path
    cache: Path
    allowed: AllowedSources
    """The sources that jobs may name."""
    artifact_sha256: str | None = None
    """Digest of the artifact if it is a registered version."""

    def digest(self) -> str:
        """Return the digest by which adapters know the base model that they belong to."""
        return self.artifact_sha256 or folder_digest(self.folder, self.cache)


def local_base(reference: str, field: str = "base_model", code: Exit = Exit.USAGE) -> LocalBase:
    """Return the base model. Ends the command with `code` if there is none.

    The base model of a registered version is the version's files if it is a whole model, else the one that its adapter belongs to.
    """
    cli = CliSettings()
    cache, allowed = cache_of(cli.home), SourceSettings().allowed(cli.home, cli.cache)
    while version_reference(reference) is not None:
        version = _registered(reference, cli)
        if is_whole(version.artifact, version.lineage):
            return LocalBase(files_of(version, cli), cache, allowed, version.artifact.sha256)
        reference = version.lineage.base_model
    try:
        return LocalBase(resolve_model(reference, cache, allowed), cache, allowed)
    except ReferenceFault as fault:
        stop_with(code, f"{field} {reference}: {fault}")


def local_judge(judge: JudgeSettings) -> Path | None:
    """Return the folder of the model that a local judge loads, of a reward model that of its base model; None: the job's base model.

    Ends the command if there is none.
    """
    if judge.model is not None:
        return local_base(judge.model, "feedback.judge.model").folder
    if judge.reward_model is None:
        return None
    field = "feedback.judge.reward_model"
    if version_reference(judge.reward_model) is not None:
        return local_base(judge.reward_model, field).folder
    return local_base(_base_of_reward_model(judge.reward_model, field), field).folder


def _base_of_reward_model(reference: str, field: str) -> str:
    from services.feedback.judges.reward import Unscorable, record_of

    cli = CliSettings()
    cache, allowed = cache_of(cli.home), SourceSettings().allowed(cli.home, cli.cache)
    try:
        folder = resolve(reference, cache, allowed)
        require_inside(folder, cache, allowed)
        return record_of(folder).base_model
    except (ReferenceFault, Unscorable) as fault:
        stop_with(Exit.USAGE, f"{field} {reference}: {fault}")


def _registered(reference: str, cli: CliSettings) -> VersionView:
    with http_address(cli) as address, Edge(address) as edge:
        return version_of(edge, reference)
