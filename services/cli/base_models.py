"""Finds a base model for commands that work on this machine without a service."""

from pathlib import Path

from services.chassis.executor.folders import cache_of
from services.chassis.storage.references import ReferenceFault, resolve_model
from services.chassis.storage.sources.allowed import AllowedSources
from services.chassis.storage.sources.settings import SourceSettings
from services.cli.exits import Exit, stop_with
from services.cli.settings import CliSettings


def local_base(reference: str, field: str = "base_model") -> tuple[Path, Path, AllowedSources]:
    """Return the base model's folder, the cache, and the sources that jobs may name. Ends the command if there is none."""
    cli = CliSettings()
    cache, allowed = cache_of(cli.home), SourceSettings().allowed(cli.home, cli.cache)
    try:
        return resolve_model(reference, cache, allowed), cache, allowed
    except ReferenceFault as fault:
        stop_with(Exit.USAGE, f"{field} {reference}: {fault}")
