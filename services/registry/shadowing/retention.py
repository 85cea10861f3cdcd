"""Removes the answers of callers that judges were given: by their age, whoever wrote them and whether or not a row names them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from services.chassis.settings import ServiceSettings
from services.chassis.storage.artifacts.pairs import pairs_store
from services.chassis.storage.artifacts.store import ArtifactStore
from services.chassis.storage.retention.policy import RetentionRule
from services.chassis.storage.retention.run import RemovedAmount, Remover


@dataclass(frozen=True)
class OldPairs:
    """Removes artifacts of a store by their age."""

    store: ArtifactStore
    rule: RetentionRule
    kind: str = "answer pairs"

    async def apply(self, *, dry: bool) -> RemovedAmount:
        """Remove those that are too old. Raises StoreAway."""
        return await asyncio.to_thread(self._apply, dry)

    def _apply(self, dry: bool) -> RemovedAmount:
        removals, now, gone = self.store.removals, datetime.now(UTC), list[int]()
        if not dry:
            removals.finish()
        for digest in removals.digests():
            known = removals.examine(digest)
            if known is not None and now - known.at > self.rule.age and (dry or removals.remove(known)):
                gone.append(known.size)
        return RemovedAmount(len(gone), sum(gone))


def removers(settings: ServiceSettings) -> Sequence[Remover]:
    """Return the remover of the pairs of an installation."""
    return (OldPairs(pairs_store(settings.artifacts_uri), settings.retention.answer_pairs),)
