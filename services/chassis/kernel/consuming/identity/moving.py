"""Moves the position of a stopped partition, when an operator decides it or, in a topic with limited retention, by itself."""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.topics import CATALOGUE
from services.chassis.kafka.metadata import FoundLog
from services.chassis.kernel import store
from services.chassis.kernel.consuming.identity import rows
from services.chassis.kernel.consuming.identity.examine import PartitionStop, Span
from services.chassis.kernel.deadletters import repository as letters
from services.chassis.kernel.records import Partition

LOSSY = frozenset(topic.name for topic in CATALOGUE if not topic.lasts)
"""Topics with limited retention: lost records are accepted, and a service continues by itself and logs it."""
Moves = Mapping[Partition, int | None]
"""Offsets at which partitions continue; None for one that does not exist any more."""


def moves(
    partition: Partition, why: PartitionStop, positions: Mapping[Partition, int], spans: Mapping[Partition, Span]
) -> Moves:
    """Return where the partition continues; when the log is another, all partitions of the topic that have a position begin
    at its start."""
    if why.cause == "removed":
        return {partition: why.next_offset}
    if why.cause == "another log":
        topic = {other for other in positions if other[0] == partition[0]}
        return {other: spans[other].begin if other in spans else None for other in topic}
    return {partition: spans[partition].end if partition in spans else None}


async def go_on_at(connection: AsyncConnection, found: FoundLog, moved: Moves) -> None:
    """Set the positions, which the caller has locked, and store the identity of the log."""
    await store.move_positions(connection, {other: offset for other, offset in moved.items() if offset is not None})
    await rows.remove_positions(connection, [other for other, offset in moved.items() if offset is None])
    await rows.replace(connection, found, {topic for topic, _ in moved})
    await rows.delete_stops(connection, moved)


async def start_over(
    connection: AsyncConnection, found: FoundLog, moved: Moves, positions: Mapping[Partition, int]
) -> bool:
    """Continue in a topic with limited retention; the dead letters of records that it lost are deleted.

    `positions` are those on which `moved` was decided: if one of them has changed, another process was faster, nothing is
    changed, and the result is False.
    """
    locked = await store.lock_positions(connection, sorted(moved))
    if any(other not in locked or locked[other].next_offset != positions[other] for other in moved):
        return False
    for partition, offset in moved.items():
        await letters.delete_from(connection, partition, offset or 0)
    await go_on_at(connection, found, moved)
    return True
