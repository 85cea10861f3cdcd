"""Lists every partition that a service reads, with its position and, if it is stopped, where, why and since when."""

from datetime import datetime
from typing import Literal

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.base import Frozen
from services.chassis.kernel import log
from services.chassis.kernel.consuming.identity.examine import Cause
from services.chassis.kernel.consuming.lag import Reach
from services.chassis.kernel.operations.partitions.reading import ComparedPositions, ConsumedTopics, compared_positions
from services.chassis.kernel.records import Partition

State = Literal["at its end", "behind", "stands"]


class PartitionView(Frozen):
    """One partition, and how far a service has read it."""

    topic: str
    partition: int
    state: State = Field(
        description="at its end; behind: records are left to read; stands: the service has stopped reading it."
    )
    position: int = Field(description="First offset that is not applied.")
    begin: int | None = Field(description="First offset that the log still has; null: the partition does not exist.")
    end: int | None = Field(
        description="First offset that is not readable yet, counting markers of transactions; null: the partition does "
        "not exist."
    )
    cause: Cause | None = Field(
        description="record: its handling stops the partition. gap: the database is older than the log. removed: unread records are "
        "gone. another log, beyond the end, gone: it is not the log that was read. unknown: the cluster does not report "
        "its identity. "
        "Null: it is read."
    )
    reason: str | None = Field(description="Where and why it has stopped, and the remedy.")
    since: datetime | None = Field(
        description="Since when it has stopped, as the service stored it; null: the service has not noticed it yet, or "
        "reads on."
    )


async def _behind(reading: ConsumedTopics, found: ComparedPositions) -> set[Partition]:
    """Partitions that have records left to read, by the same rule as readiness and lag."""
    ranges = {p: (max(found.positions.get(p, 0), span.begin), span.end) for p, span in found.now.spans.items()}
    read = await log.passed(reading.cluster, {p: (first, end) for p, (first, end) in ranges.items() if first < end})
    behind = {
        partition
        for partition, (first, end) in ranges.items()
        if Reach(found.positions.get(partition, 0), read.get(partition, first), False, end, end).behind
    }
    return behind | (found.positions.keys() - ranges.keys())


async def listed(engine: AsyncEngine, reading: ConsumedTopics) -> list[PartitionView]:
    """Return all partitions that the service reads, in order. Raises NoIdentity and the servers' errors."""
    async with engine.connect() as connection:
        found = await compared_positions(connection, reading)
    now, views = found.now, []
    behind = await _behind(reading, found)
    for partition in sorted(now.spans.keys() | found.positions.keys()):
        position, span = found.positions.get(partition, 0), now.spans.get(partition)
        stop, stored = found.stops.get(partition), found.stored.get(partition)
        state: State = "behind" if partition in behind else "at its end"
        views.append(
            PartitionView(
                topic=partition[0],
                partition=partition[1],
                state="stands" if stop else state,
                position=position,
                begin=span.begin if span else None,
                end=span.end if span else None,
                cause=stop.cause if stop else None,
                reason=stop.reason if stop else None,
                since=stored.since if stop and stored else None,
            )
        )
    return views
