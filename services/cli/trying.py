"""A registered version answers on this machine: an adapter on the base model that it belongs to and no other, a model alone."""

from pathlib import Path

from services.cli.base_models import local_base
from services.cli.exits import Exit, stop_with
from services.registry.views import VersionView


def answer(version: VersionView, files: Path, question: str, system: str | None, tokens: int) -> str:
    """Return the answer of `version`, whose files are in `files`, to `question`. Ends the command if it cannot answer."""
    try:
        from schemas.lines import Message
        from services.chassis.executor.child import UserFault
        from services.language_models.chat_format.chat import ChatFault
        from services.trainer import answer as trainer
        from services.trainer.modelling.four_bits import without_bitsandbytes
    except ImportError as error:
        stop_with(Exit.FAILED, f"{error}: to try models on this machine, pip install 'neuroweaver[trainer]'")
    without_bitsandbytes()
    base = None if version.kind == "model" else _base(version)
    turns = [("system", system), ("user", question)]
    messages = [Message(role=role, content=content) for role, content in turns if content]
    try:
        return trainer.answer(base, files, messages, tokens)
    except ChatFault as fault:
        stop_with(Exit.FAILED, f"{version.id}: {fault}; {fault.remedy}")
    except UserFault as fault:
        stop_with(Exit.FAILED, f"{version.id}: " + "\n".join(map(str, fault.reasons)))


def _base(version: VersionView) -> Path:
    lineage = version.lineage
    base = local_base(lineage.base_model, f"{version.id}: base model", Exit.FAILED)
    digest = base.digest()
    if lineage.base_model_sha256 not in (None, digest):
        stop_with(
            Exit.FAILED,
            f"base model {lineage.base_model} has changed since {version.id} was trained on it (sha256 {digest}, then "
            f"{lineage.base_model_sha256}): bring back the files that it was trained on",
        )
    return base.folder
