"""Says which artifacts the rows of a service reference, so that retention keeps them. Doubt references everything.

Every row of every table references each digest that stands in it, in whatever field, unless the service has named the table in its
`ReferencedBy`: so a table or a field that somebody adds references from its first day.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from services.chassis.kernel import store
from services.chassis.kernel.operations.partitions import listing
from services.chassis.kernel.operations.partitions.listing import PartitionView
from services.chassis.kernel.operations.partitions.reading import ConsumedTopics
from services.chassis.kernel.records import Partition
from services.chassis.postgres.locks import REPLAY_LOCK
from services.chassis.replay import statements

_PATIENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.5

ReferencedBy = Mapping[str, str]
"""By table: the query of the texts in which digests stand that its rows reference. A query may use `:seconds`, the age after which what
has ended or was deleted references nothing more."""


class Unsure(Exception):
    """It is not known what the rows of a service reference; nothing may be removed."""


@dataclass(frozen=True)
class ReferencedArtifacts:
    """What one service references."""

    service: str
    reading: ConsumedTopics
    referenced_by: ReferencedBy = field(default_factory=dict)

    async def digests(self, seconds: float) -> set[str]:
        """Return the digests that the rows reference. Raises Unsure while the projection is made again, and the database's errors."""
        engine = store.connect(self.reading.database_url, pool_size=1, statement_seconds=store.MAINTENANCE_SECONDS)
        try:
            async with engine.connect() as connection:
                await self._require_no_run(connection)
                return await self._digests(connection, seconds)
        finally:
            await engine.dispose()

    async def require_read(self) -> int:
        """Wait until the service has applied what the log has now, and return how many records those are. Raises Unsure if it does not,
        and the servers' errors."""
        engine = store.connect(self.reading.database_url, pool_size=1)
        try:
            ends = {_place(view): view.end or 0 for view in await listing.listed(engine, self.reading)}
            until = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
            while behind := [view for view in await listing.listed(engine, self.reading) if _is_behind(view, ends)]:
                view = behind[0]
                if view.state == "stands" or asyncio.get_running_loop().time() > until:
                    why = f"{self.service} has not applied {view.topic}:{view.partition} to offset {ends.get(_place(view), 0)}"
                    raise Unsure(f"{why}, it is at {view.position}; see `neuroweaver partitions`")
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            await engine.dispose()
        return sum(ends.values())

    async def _require_no_run(self, connection: AsyncConnection) -> None:
        until = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
        while await connection.scalar(statements.IS_LOCKED, {"lock": REPLAY_LOCK}):
            if asyncio.get_running_loop().time() > until:
                raise Unsure(f"the projection of {self.service} is verified, made again or restored; wait for it")
            await asyncio.sleep(_LOOK_SECONDS)

    async def _digests(self, connection: AsyncConnection, seconds: float) -> set[str]:
        found: set[str] = set()
        tables = list((await connection.execute(statements.TABLES)).all())
        if not tables:
            raise Unsure(f"the database of {self.service} has no tables; run `neuroweaver migrate {self.service}`")
        known = {**statements.REFERENCED_BY, **self.referenced_by}
        for schema, table in tables:
            query = known.get(table, statements.whole_rows(schema, table))
            values = {"seconds": seconds} if ":seconds" in query else {}
            found.update((await connection.execute(statements.digests_in(query), values)).scalars())
        return found


def _place(view: PartitionView) -> Partition:
    """Return topic and number of a partition."""
    return view.topic, view.partition


def _is_behind(view: PartitionView, ends: Mapping[Partition, int]) -> bool:
    """Return whether what was in the log is left to read. What the service never read does not count as read."""
    if view.state == "at its end":
        return False
    return view.state == "stands" or view.position < ends.get(_place(view), 0)
