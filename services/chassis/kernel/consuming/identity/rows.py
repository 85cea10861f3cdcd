"""Reads and writes the log identity: which log the positions belong to, and which partitions are stopped."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from services.chassis.kafka.metadata import FoundLog
from services.chassis.kernel.consuming.identity import statements
from services.chassis.kernel.consuming.identity.examine import Cause, KeptLog, PartitionStop
from services.chassis.kernel.records import Partition


@dataclass(frozen=True, slots=True)
class StoredStop:
    """The stop of a partition, and since when it lasts."""

    stop: PartitionStop
    since: datetime


async def kept(connection: AsyncConnection) -> dict[str, KeptLog]:
    """Return the stored identity of each topic's log, from when it was first read."""
    return {
        topic: KeptLog(cluster, topic_id)
        for topic, cluster, topic_id in await connection.execute(statements.READ_IDENTITIES)
    }


async def note(connection: AsyncConnection, found: FoundLog, topics: Iterable[str]) -> None:
    """Store the identity of those `topics` of which none is stored."""
    if values := _values(found, topics):
        await connection.execute(statements.NOTE_IDENTITY, values)


async def replace(connection: AsyncConnection, found: FoundLog, topics: Iterable[str]) -> None:
    """Store the identity of `topics`, in place of what was stored before."""
    if values := _values(found, topics):
        await connection.execute(statements.REPLACE_IDENTITY, values)


def _values(found: FoundLog, topics: Iterable[str]) -> list[dict[str, str]]:
    return [
        {"topic": topic, "cluster_id": found.cluster_id, "topic_id": found.topics[topic].topic_id}
        for topic in sorted(topics)
        if topic in found.topics
    ]


async def remove_positions(connection: AsyncConnection, partitions: Iterable[Partition]) -> None:
    """Delete the positions of partitions that do not exist any more."""
    for topic, partition in sorted(partitions):
        await connection.execute(statements.DELETE_POSITION, {"topic": topic, "partition": partition})


async def store_stops(connection: AsyncConnection, stops: Mapping[Partition, PartitionStop]) -> None:
    """Store that these partitions are stopped; `since` stays where cause and offset are unchanged."""
    for (topic, partition), why in sorted(stops.items()):
        await connection.execute(
            statements.STORE_STOP,
            {
                "topic": topic, "partition": partition, "cause": why.cause, "offset": why.offset,
                "next_offset": why.next_offset, "reason": why.reason.replace("\x00", "\\0"),
            },
        )  # fmt: skip


async def delete_stops(connection: AsyncConnection, partitions: Iterable[Partition]) -> None:
    """Delete the stops of these partitions."""
    for topic, partition in sorted(partitions):
        await connection.execute(statements.DELETE_STOP, {"topic": topic, "partition": partition})


async def stored_stops(connection: AsyncConnection) -> dict[Partition, StoredStop]:
    """Every stopped partition whose stop is at its current position."""
    return {
        (topic, partition): StoredStop(PartitionStop(_cause(cause), offset, next_offset, reason), since)
        for topic, partition, cause, offset, next_offset, reason, since in await connection.execute(statements.READ_STOPS)
    }


def _cause(said: str) -> Cause:
    cause: Cause = said  # type: ignore[assignment]  # this code wrote it
    return cause
