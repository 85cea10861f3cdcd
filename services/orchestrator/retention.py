"""Removes expired data that the orchestrator stores beside its projection."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis.replay.retention import delete
from services.chassis.storage.retention.policy import RetentionSettings
from services.chassis.storage.retention.run import Remover
from services.orchestrator import statements


def removers(engine: AsyncEngine, policy: RetentionSettings) -> Sequence[Remover]:
    """Return the remover of progress of jobs that have ended."""
    return (delete("progress", engine, "progress", statements.OLD_PROGRESS, {"seconds": policy.progress_days * 86_400}),)
