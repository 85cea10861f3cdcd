"""Reads the discards of records from the log, so that a service whose database was lost skips the same records again."""

from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.discards import LogAccepted, RecordDiscarded
from schemas.envelope import Event, Unreadable
from schemas.topics import DISCARDS
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.metadata import ask_once
from services.chassis.kernel import log, store
from services.chassis.kernel.deadletters import repository
from services.chassis.kernel.records import event_in
from services.chassis.kernel.statements import INSERT_POSITION


async def read_discards(cluster: Cluster, source: str) -> list[RecordDiscarded]:
    """Return every record that `source` discarded, according to the log, except those in logs that are no longer read."""
    found: list[RecordDiscarded] = []
    kinds = {RecordDiscarded.type_name(), LogAccepted.type_name()}
    async with log.read(cluster, await log.bounds(cluster, [DISCARDS.name])) as chunks:
        async for chunk in chunks:
            for record in chunk:
                try:
                    event = event_in(record, kinds)
                except Unreadable:
                    continue
                if not isinstance(event, Event) or event.source != source:
                    continue
                if isinstance(event.data, RecordDiscarded):
                    found.append(event.data)
                elif isinstance(event.data, LogAccepted):
                    found = [known for known in found if not _belongs_to_the_log_before(known, event.data)]
    return found


def _belongs_to_the_log_before(known: RecordDiscarded, accepted: LogAccepted) -> bool:
    """Return whether another record may have the id of one that was discarded before `accepted`."""
    same = accepted.topic_id == accepted.previous_topic_id  # the topic lost its end; the rest is unchanged
    return known.topic == accepted.topic and any(
        moved.partition == known.partition and (not same or known.offset >= (moved.now or 0))
        for moved in accepted.partitions
    )


async def learn_discards(engine: AsyncEngine, cluster: Cluster, source: str) -> None:
    """Store the discards on the log that this database does not have, of partitions that exist.

    Raises NoIdentity and the servers' errors.
    """
    given_up = await read_discards(cluster, source)
    if not given_up:
        return
    topics = (await ask_once(cluster, {discarded.topic for discarded in given_up})).topics
    found = [one for one in given_up if one.topic in topics and one.partition in topics[one.topic].partitions]
    partitions = sorted({(discarded.topic, discarded.partition) for discarded in found})
    async with engine.begin() as connection:
        await connection.execute(INSERT_POSITION, [{"topic": topic, "partition": n} for topic, n in partitions])
        await store.lock_positions(connection, partitions)
        await repository.learn(connection, [discarded.model_dump() for discarded in found])
        for partition in partitions:
            await repository.flag(connection, partition)
