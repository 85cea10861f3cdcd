"""Publishes how each model is now whenever it has changed: a fold of the log, so that who loses the topic gets it again.

One process publishes at a time, by an advisory lock. A state is published before that is noted, so a crash publishes it once more; of two
records of a model the one with the higher numbers is the newer.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from schemas.latest import Deployed, ModelChanged
from services.chassis.kafka.publisher import outside_event
from services.chassis.postgres.exclusive import Exclusive
from services.chassis.postgres.turns import in_turn
from services.chassis.process.logging import get_logger
from services.chassis.process.repeated_failures import FailureLog
from services.chassis.serving.runtime import Runtime
from services.registry.latest import statements
from services.registry.locks import LATEST_LOCK

_log = get_logger(__name__)
_MOST = 100
"""The most models that are looked at in one statement."""


@dataclass(frozen=True)
class LatestPublisher:
    """The publisher of one process."""

    runtime: Runtime

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop`."""
        failure = "the latest states of models could not be published"
        await in_turn(self.runtime.engine, LATEST_LOCK, self.once, stop, FailureLog(_log), failure)

    async def once(self, session: Exclusive) -> bool:
        """Publish the models that have changed, at most a hundred; return whether there may be more. Raises the errors of database and
        broker."""
        rows: list[Any] = list(await session.execute(statements.CHANGED, {"most": _MOST}))
        for model, sequence, version, aliases, job_id, deployed, deployments in rows:
            state = ModelChanged(
                model=model, version=version, aliases=json.loads(aliases), sequence=sequence,
                deployments=tuple(map(Deployed.model_validate, deployments)),
            )  # fmt: skip
            event = outside_event(self.runtime.domain.source, state, correlation_id=job_id or model, subject=model)
            await self.runtime.publisher.publish(event)
            note = {"model": model, "sequence": sequence, "deployments": deployed}
            await session.execute(statements.PUBLISHED, note)
        return len(rows) == _MOST
