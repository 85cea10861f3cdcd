"""All SQL of the log's identity in one place: which log the positions belong to, and which partitions stand."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.chassis.kafka.metadata import FoundLog
from services.chassis.kernel.consuming.identity.examine import Cause, KeptLog, Standing
from services.chassis.kernel.records import Partition

_KEPT = text("SELECT topic, cluster_id, topic_id FROM log_identity")
_NOTE = text(
    """INSERT INTO log_identity (topic, cluster_id, topic_id) VALUES (:topic, :cluster_id, :topic_id)
       ON CONFLICT (topic) DO NOTHING"""
)
_REPLACE = text(
    """INSERT INTO log_identity (topic, cluster_id, topic_id) VALUES (:topic, :cluster_id, :topic_id)
       ON CONFLICT (topic) DO UPDATE SET cluster_id = :cluster_id, topic_id = :topic_id, noted_at = now()"""
)
_REMOVE_POSITION = text("DELETE FROM position WHERE topic = :topic AND partition = :partition")
_STAND = text(
    """INSERT INTO standing (topic, partition, cause, "offset", next_offset, reason)
       VALUES (:topic, :partition, :cause, :offset, :next_offset, :reason)
       ON CONFLICT (topic, partition) DO UPDATE SET cause = :cause, "offset" = :offset, next_offset = :next_offset, reason = :reason,
           since = CASE WHEN standing.cause = :cause AND standing."offset" = :offset THEN standing.since ELSE now() END"""
)
_GO_ON = text("DELETE FROM standing WHERE topic = :topic AND partition = :partition")
_STANDING = text(
    """SELECT topic, partition, cause, "offset", standing.next_offset, reason, since FROM standing
       JOIN position USING (topic, partition) WHERE "offset" = position.next_offset ORDER BY topic, partition"""
)


@dataclass(frozen=True, slots=True)
class Stands:
    """A partition that stands, since when."""

    standing: Standing
    since: datetime


async def kept(connection: AsyncConnection) -> dict[str, KeptLog]:
    """Which log each topic was when it was first read."""
    return {topic: KeptLog(cluster, topic_id) for topic, cluster, topic_id in await connection.execute(_KEPT)}


async def note(connection: AsyncConnection, found: FoundLog, topics: Iterable[str]) -> None:
    """Keep what the cluster says of those `topics` of which nothing is kept."""
    if values := _values(found, topics):
        await connection.execute(_NOTE, values)


async def replace(connection: AsyncConnection, found: FoundLog, topics: Iterable[str]) -> None:
    """Keep what the cluster says of `topics`, whatever was kept before."""
    if values := _values(found, topics):
        await connection.execute(_REPLACE, values)


def _values(found: FoundLog, topics: Iterable[str]) -> list[dict[str, str]]:
    return [
        {"topic": topic, "cluster_id": found.cluster_id, "topic_id": found.topics[topic].topic_id}
        for topic in sorted(topics)
        if topic in found.topics
    ]


async def remove_positions(connection: AsyncConnection, partitions: Iterable[Partition]) -> None:
    """Forget how far partitions were read that do not exist any more."""
    for topic, partition in sorted(partitions):
        await connection.execute(_REMOVE_POSITION, {"topic": topic, "partition": partition})


async def stand(connection: AsyncConnection, standing: Mapping[Partition, Standing]) -> None:
    """Note that these partitions stand; since when stays where cause and place do."""
    for (topic, partition), why in sorted(standing.items()):
        await connection.execute(
            _STAND,
            {
                "topic": topic, "partition": partition, "cause": why.cause, "offset": why.offset,
                "next_offset": why.next_offset, "reason": why.reason.replace("\x00", "\\0"),
            },
        )  # fmt: skip


async def go_on(connection: AsyncConnection, partitions: Iterable[Partition]) -> None:
    """Note that these partitions stand no more."""
    for topic, partition in sorted(partitions):
        await connection.execute(_GO_ON, {"topic": topic, "partition": partition})


async def standing(connection: AsyncConnection) -> dict[Partition, Stands]:
    """Every partition that stands where its position is."""
    return {
        (topic, partition): Stands(Standing(_cause(cause), offset, next_offset, reason), since)
        for topic, partition, cause, offset, next_offset, reason, since in await connection.execute(_STANDING)
    }


def _cause(said: str) -> Cause:
    cause: Cause = said  # type: ignore[assignment]  # this code wrote it
    return cause
