"""Finds the position from which a partition is read, and whether it may be: only if it is the log in which the position was taken.

A topic with limited retention that was replaced, or has lost unread records, continues without an operator. In any other topic a
partition that must not be read stops, alone, and is examined again after a while, since it may be repaired meanwhile.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis.kafka import metadata
from services.chassis.kafka.metadata import FoundLog
from services.chassis.kernel import store
from services.chassis.kernel.consuming.identity import rows
from services.chassis.kernel.consuming.identity.examine import PartitionStop, Span, stops_of
from services.chassis.kernel.consuming.identity.moving import LOSSY, Moves, moves, start_over
from services.chassis.kernel.records import Partition
from services.chassis.kernel.statements import INSERT_POSITION
from services.chassis.process.logging import get_logger

_log = get_logger(__name__)
_TRIES = 5


class MovedByOthers(Exception):
    """Other processes of the service moved the same positions at the same time."""


class StartingPoint(NamedTuple):
    """Where to read a partition, according to the database and the log."""

    position: int
    """The next offset to apply."""
    stop: PartitionStop | None
    """Why it must not be read from there; None where it may."""


async def which_log(consumer: AIOKafkaConsumer, topics: Collection[str]) -> FoundLog:
    """Return the identity of the log that the consumer's broker has now. Raises NoIdentity and the broker's errors."""
    return await metadata.ask(consumer._client, topics)


async def spans_of(consumer: AIOKafkaConsumer, found: FoundLog, partitions: Collection[Partition]) -> dict[Partition, Span]:
    """Return the first and end offsets of those `partitions` that exist. Raises the broker's errors."""
    there = [
        TopicPartition(topic, number)
        for topic, number in sorted(partitions)
        if topic in found.topics and number in found.topics[topic].partitions
    ]
    if not there:
        return {}
    begins, ends = await consumer.beginning_offsets(there), await consumer.end_offsets(there)
    return {(partition.topic, partition.partition): Span(begins[partition], ends[partition]) for partition in there}


async def starting_points(
    engine: AsyncEngine, service: str, consumer: AIOKafkaConsumer, partitions: Collection[Partition]
) -> dict[Partition, StartingPoint]:
    """Return the starting point of each of `partitions`; one without a position begins at 0. The log's identity is stored
    if it was unknown.

    Raises NoIdentity, MovedByOthers and the database's and the broker's errors.
    """
    for _ in range(_TRIES):
        if (found := await _starting_points(engine, service, consumer, partitions)) is not None:
            return found
    raise MovedByOthers(f"other processes moved the positions during {_TRIES} checks; they are checked again")


async def _starting_points(
    engine: AsyncEngine, service: str, consumer: AIOKafkaConsumer, partitions: Collection[Partition]
) -> dict[Partition, StartingPoint] | None:
    """Return the starting points, or None if another process moved positions meanwhile, so that the caller must try
    again."""
    topics = {topic for topic, _ in partitions}
    found = await which_log(consumer, topics)
    async with engine.begin() as connection:
        await connection.execute(
            INSERT_POSITION, [{"topic": topic, "partition": number} for topic, number in sorted(partitions)]
        )
        positions = await store.positions(connection)
        kept = await rows.kept(connection)
        await rows.note(connection, found, topics - kept.keys())
    spans = await spans_of(consumer, found, partitions)
    mine = {partition: positions[partition] for partition in partitions}
    stops = stops_of(service, mine, kept, found, spans)
    moved: dict[Partition, int | None] = {}
    for partition, why in stops.items():
        if partition[0] in LOSSY and partition[0] in found.topics and partition not in moved:
            whole = await spans_of(consumer, found, [partition for partition in positions if partition[0] == partition[0]])
            wanted = moves(partition, why, positions, whole)
            if not await _goes_on(engine, found, why, wanted, positions):
                return None
            moved |= wanted
    return {
        partition: StartingPoint(moved[partition] or 0, None)
        if partition in moved
        else StartingPoint(position, stops.get(partition))
        for partition, position in mine.items()
    }


async def _goes_on(
    engine: AsyncEngine, found: FoundLog, why: PartitionStop, moved: Moves, positions: Mapping[Partition, int]
) -> bool:
    async with engine.begin() as connection:
        done = await start_over(connection, found, moved, positions)
    if done:
        _log.warning(
            "a topic with limited retention continues by itself", cause=why.cause, reason=why.reason, at=str(moved)
        )
    return done


def removed(partition: Partition, position: int, begin: int) -> bool:
    """Return whether unread records were removed from a topic that is kept for ever."""
    return begin > position and partition[0] not in LOSSY


async def own_gaps(consumer: AIOKafkaConsumer, jumps: Mapping[Partition, int]) -> set[Partition]:
    """Return those of `jumps` (partition to the offset where the jump begins) in which the log has nothing readable.

    When the records of a fetch from an offset begin higher, nothing readable lies between, unless the log itself begins higher:
    then the client silently begins there. Raises the broker's errors.
    """
    if not jumps:
        return set()
    found = await consumer.beginning_offsets([TopicPartition(*partition) for partition in jumps])
    begins = {partition: found[TopicPartition(*partition)] for partition in jumps}
    for partition, offset in jumps.items():
        if begins[partition] > offset and partition[0] in LOSSY:
            _log.warning(
                "unread records of a topic with limited retention were removed", partition=partition, first=offset,
                next=begins[partition],
            )  # fmt: skip
    return {partition for partition, offset in jumps.items() if not removed(partition, offset, begins[partition])}
