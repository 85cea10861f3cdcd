"""What is known before a partition is read from the database's position, and the reasons why it is not read.

A partition with a reason in `why_not` stops there, alone: the reason is in the health, and it is asked about again after a
while, for it may have been mended meanwhile.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.topics import CATALOGUE
from services.chassis import store
from services.chassis.records import Partition

_EXPIRING = frozenset(topic.name for topic in CATALOGUE if topic.retention_ms is not None)


class Bearings(NamedTuple):
    """A partition as the database and the log have it."""

    position: int
    """The next offset to apply."""
    begin: int
    """First offset that the log still has."""
    end: int
    """The offset after the last that can be read: the first one of an open transaction, where there is one."""


async def bearings(
    engine: AsyncEngine, consumer: AIOKafkaConsumer, partitions: Collection[Partition]
) -> dict[Partition, Bearings]:
    """Of each of `partitions`; one without a position begins at 0. Raises the database's and the broker's errors."""
    async with engine.begin() as connection:
        await connection.execute(
            store.INSERT_POSITION, [{"topic": topic, "partition": number} for topic, number in sorted(partitions)]
        )
        positions = await store.positions(connection)
    wanted = [TopicPartition(*partition) for partition in sorted(partitions)]
    begins, ends = await consumer.beginning_offsets(wanted), await consumer.end_offsets(wanted)
    return {tuple(p): Bearings(positions[tuple(p)], begins[p], ends[p]) for p in wanted}


def why_not(partition: Partition, found: Bearings) -> str | None:
    """Why this partition may not be read from its position; None where it may."""
    topic, number = partition
    if found.position > found.end:
        return (
            f"{topic}:{number} is applied up to offset {found.position} but ends at {found.end}: "
            "this is another log; restore it, or give this service a new database"
        )
    if removed(partition, found.position, found.begin):
        return f"{topic}:{number} is applied up to offset {found.position} but begins at {found.begin}: unread records are gone"
    return None


def removed(partition: Partition, position: int, begin: int) -> bool:
    """Whether records that were to be read are gone, where that is a loss: a topic that is kept for ever."""
    return begin > position and partition[0] not in _EXPIRING


async def own_gaps(consumer: AIOKafkaConsumer, jumps: Mapping[Partition, int]) -> set[Partition]:
    """Those of `jumps`, by the offset they begin at, between whose offsets the log has nothing that can be read.

    Where records of a fetch from a given offset begin higher, nothing readable lay between, unless the log began higher already:
    then the client silently begins there. Raises the broker's errors.
    """
    if not jumps:
        return set()
    begins = await consumer.beginning_offsets([TopicPartition(*partition) for partition in jumps])
    return {
        partition
        for partition, offset in jumps.items()
        if not removed(partition, offset, begins[TopicPartition(*partition)])
    }
