"""Why: a registered version answers on this machine, on the base model that it belongs to and no other."""

from pathlib import Path

from services.chassis.executor.folders import cache_of
from services.chassis.references import ReferenceFault, folder_digest, resolve
from services.cli.exits import Exit, stop_with
from services.cli.settings import CliSettings
from services.registry.views import VersionView


def answer(
    version: VersionView, adapter: Path, question: str, system: str | None, tokens: int, settings: CliSettings
) -> str:
    """What `version`, whose files lie in `adapter`, says to `question`. Ends the command where that cannot be."""
    try:
        from services.trainer import answer as trainer
        from services.trainer.data.rows import Message
    except ImportError as error:
        stop_with(Exit.FAILED, f"{error}: to try models on this machine, pip install 'neuroweaver[trainer]'")
    base = _base(version, cache_of(settings.home))
    turns = [("system", system), ("user", question)]
    messages = [Message(role=role, content=content) for role, content in turns if content]
    return trainer.answer(base, adapter, messages, tokens)


def _base(version: VersionView, cache: Path) -> Path:
    lineage = version.lineage
    try:
        base = resolve(lineage.base_model, cache)
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
