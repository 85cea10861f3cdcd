"""Why: what was given up is on the log, so that a service whose database was lost leaves it out again."""

from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.discards import RecordDiscarded
from schemas.envelope import Event, Unreadable, decode
from schemas.topics import DISCARDS
from services.chassis import log, store
from services.chassis.cluster import Cluster
from services.chassis.deadletters import rows
from services.chassis.records import appended_at


async def read_discards(cluster: Cluster, source: str) -> list[RecordDiscarded]:
    """Everything that `source` gave up, as the log has it."""
    found: list[RecordDiscarded] = []
    async for chunk in log.read(cluster, await log.bounds(cluster, [DISCARDS.name])):
        for record in chunk:
            try:
                event = decode(record.value, record.headers, {RecordDiscarded.type_name()}, appended_at(record))
            except Unreadable:
                continue
            if isinstance(event, Event) and isinstance(event.data, RecordDiscarded) and event.source == source:
                found.append(event.data)
    return found


async def learn_discards(engine: AsyncEngine, cluster: Cluster, source: str) -> None:
    """Note what the log says was given up and this database does not know. Raises the servers' errors."""
    found = await read_discards(cluster, source)
    if not found:
        return
    partitions = sorted({(discarded.topic, discarded.partition) for discarded in found})
    async with engine.begin() as connection:
        await connection.execute(store.INSERT_POSITION, [{"topic": topic, "partition": n} for topic, n in partitions])
        await store.lock_positions(connection, partitions)
        await rows.learn(connection, [discarded.model_dump() for discarded in found])
        for partition in partitions:
            await rows.flag(connection, partition)
