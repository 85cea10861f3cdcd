"""A registered version answers on this machine: an adapter on the base model that it belongs to and no other, a model alone."""

from pathlib import Path

from services.chassis.executor.folders import cache_of
from services.chassis.storage.references import ReferenceFault, folder_digest, resolve_model
from services.chassis.storage.sources.settings import SourceSettings
from services.cli.exits import Exit, stop_with
from services.cli.settings import CliSettings
from services.registry.views import VersionView


def answer(version: VersionView, files: Path, question: str, system: str | None, tokens: int, settings: CliSettings) -> str:
    """Return the answer of `version`, whose files are in `files`, to `question`. Ends the command if it cannot answer."""
    try:
        from schemas.lines import Message
        from services.trainer import answer as trainer
        from services.trainer.modelling.four_bits import without_bitsandbytes
    except ImportError as error:
        stop_with(Exit.FAILED, f"{error}: to try models on this machine, pip install 'neuroweaver[trainer]'")
    without_bitsandbytes()
    base = None if version.kind == "model" else _base(version, settings)
    turns = [("system", system), ("user", question)]
    messages = [Message(role=role, content=content) for role, content in turns if content]
    return trainer.answer(base, files, messages, tokens)


def _base(version: VersionView, settings: CliSettings) -> Path:
    lineage, cache = version.lineage, cache_of(settings.home)
    allowed = SourceSettings().allowed(settings.home, settings.cache)
    try:
        base = resolve_model(lineage.base_model, cache, allowed)
    except ReferenceFault as fault:
        stop_with(Exit.FAILED, f"base model {lineage.base_model} of {version.id}: {fault}")
    digest = folder_digest(base, cache)
    if lineage.base_model_sha256 not in (None, digest):
        stop_with(
            Exit.FAILED,
            f"base model {lineage.base_model} has changed since {version.id} was trained on it (sha256 {digest}, then "
            f"{lineage.base_model_sha256}): bring back the files that it was trained on",
        )
    return base
