"""Fetches a registered reward model from the artifact store, with its base model if that is an artifact too."""

from pathlib import Path
from typing import NamedTuple

from schemas.judgements import RegisteredJudge
from schemas.reasons import Reason
from services.chassis.executor.child import UserFault
from services.chassis.storage.artifacts.store import ArtifactStore


class FetchedJudge(NamedTuple):
    """A registered reward model with verified files on this machine."""

    id: str
    sha256: str
    """Digest of its artifact."""
    adapter: Path
    base: Path | None
    """None if its `training.json` names the base model."""
    base_sha256: str | None
    """Digest of the artifact of that base model."""


def fetched_judge(version: RegisteredJudge | None, store: ArtifactStore, cache: Path) -> FetchedJudge | None:
    """Return the version's files; None for none. Raises the store's errors, and UserFault for a file outside the store."""
    if version is None:
        return None
    for ref in (version.adapter, version.model):
        if ref is not None and not store.is_own(ref):
            message = f"the artifact of {version.id} is not in the store of the feedback service"
            remedy = "give the registry and the feedback service the same NEUROWEAVER_ARTIFACTS_URI"
            raise UserFault(Reason(field="feedback.judge.reward_model", value=version.id, message=message, remedy=remedy))
    adapter, model = version.adapter, version.model
    base, digest = (store.fetch(model, cache), model.sha256) if model else (None, None)
    return FetchedJudge(version.id, adapter.sha256, store.fetch(adapter, cache), base, digest)
