"""Where a partition that stands goes on, once that is decided: by an operator, or by itself in a topic that is not kept for ever."""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.topics import CATALOGUE
from services.chassis.kafka.metadata import FoundLog
from services.chassis.kernel import store
from services.chassis.kernel.consuming.identity import rows
from services.chassis.kernel.consuming.identity.examine import Span, Standing
from services.chassis.kernel.deadletters import repository as letters
from services.chassis.kernel.records import Partition

LOSSY = frozenset(topic.name for topic in CATALOGUE if topic.retention_ms is not None)
"""Topics that are not kept for ever: what is lost of them is lost, and a service goes on by itself, which its log says."""
Moves = Mapping[Partition, int | None]
"""Offsets at which partitions go on; None for one that does not exist any more."""


def moves(
    partition: Partition, why: Standing, positions: Mapping[Partition, int], spans: Mapping[Partition, Span]
) -> Moves:
    """Where the partition goes on; of another log all partitions of the topic that have a position do, from the beginning."""
    if why.cause == "removed":
        return {partition: why.next_offset}
    if why.cause == "another log":
        topic = {place for place in positions if place[0] == partition[0]}
        return {place: spans[place].begin if place in spans else None for place in topic}
    return {partition: spans[partition].end if partition in spans else None}


async def go_on_at(connection: AsyncConnection, found: FoundLog, moved: Moves) -> None:
    """Put the positions there, whose locks the caller holds, and keep which log it is."""
    await store.move_positions(connection, {place: offset for place, offset in moved.items() if offset is not None})
    await rows.remove_positions(connection, [place for place, offset in moved.items() if offset is None])
    await rows.replace(connection, found, {topic for topic, _ in moved})
    await rows.go_on(connection, moved)


async def start_over(
    connection: AsyncConnection, found: FoundLog, moved: Moves, positions: Mapping[Partition, int]
) -> bool:
    """Go on in a topic that is not kept for ever; dead letters of what it held are given up with it.

    `positions` are those that `moved` was decided on: where one of them is another now, somebody else was faster, nothing is
    changed, and the answer is False.
    """
    locked = await store.lock_positions(connection, sorted(moved))
    if any(place not in locked or locked[place].next_offset != positions[place] for place in moved):
        return False
    for partition, offset in moved.items():
        await letters.give_up_from(connection, partition, offset or 0)
    await go_on_at(connection, found, moved)
    return True
