"""Keeps the registry's operational tables: the work of its executor, and what is to be looked at for rows that are erased."""

from collections.abc import Sequence

from schemas.envelope import Event
from schemas.jobs import StepCompleted
from schemas.models import ModelRegistered
from services.chassis.executor.work import WorkEffects
from services.chassis.kernel.aggregate import States
from services.chassis.kernel.effects import Notification
from services.chassis.postgres.transactions import Session
from services.registry.domain.datasets import stored_by
from services.registry.domain.state import registration_ref
from services.registry.erasing import statements

DATA, VERSION = "data", "version"


class RegistryEffects(WorkEffects):
    """Notes besides what steps stored and which versions were registered: some may have rows that were erased meanwhile."""

    async def __call__(self, connection: Session, events: Sequence[Event], states: States) -> Sequence[Notification]:
        """Note both in the transaction that folds them, so that none is forgotten."""
        found = [one for event in events if (one := _looked_for(event))]
        if found:
            kinds, keys = (list(part) for part in zip(*found, strict=True))
            await connection.execute(statements.LOOK, {"kinds": kinds, "keys": keys})
        return await super().__call__(connection, events, states)


def _looked_for(event: Event) -> tuple[str, str] | None:
    match event.data:
        case StepCompleted() as completed if told := stored_by(completed):
            return DATA, told.sha256
        case ModelRegistered(lineage=lineage):
            return VERSION, registration_ref(lineage.job_id, lineage.step).key
    return None
