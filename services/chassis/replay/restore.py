"""Why: a service whose database was lost must not decide again what it decided before: its log fills the new one first (rule 5).

What was decided and lay only in the lost outbox is decided anew; nobody has seen it. What the lost operational tables knew
(leases, progress) follows from the rows, or is lossy by nature.
"""

from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.chassis import log, store
from services.chassis.deadletters import rows
from services.chassis.logging import get_logger
from services.chassis.records import Partition
from services.chassis.replay import runs, shadow
from services.chassis.replay.aside import Aside
from services.chassis.replay.fold import Fold
from services.chassis.replay.projection import Folding, Projection
from services.chassis.replay.runs import Progress
from services.chassis.tables import OPERATIONAL

_log = get_logger(__name__)
_NEAR_RECORDS = 1000
_FORGET = text(
    f"""DELETE FROM {OPERATIONAL}.inbox USING {OPERATIONAL}.dead_letter letter
        WHERE letter.state IN ('failed', 'parked') AND (inbox.topic, inbox.partition, inbox."offset")
                                                       = (letter.topic, letter.partition, letter."offset")"""
)


async def restore(projection: Projection, engine: AsyncEngine) -> bool:
    """Fill a database that has applied nothing from a log on which its service has spoken; returns whether it did.

    One process does it, others wait their turn (Busy). What cannot be folded becomes a dead letter. Raises RecordFailure for
    an own event that cannot be folded or one failure too many, and the servers' errors; a kill at any point is harmless.
    Where the log has lost its first records, what is left is folded, and a warning says so.
    """
    if not await _is_new(engine) or not await _has_spoken(projection):
        return False
    async with runs.running(engine, "restore") as (progress, result):
        if not await _is_new(engine):
            return False
        _log.warning("new database, old log: restoring from the log before anything is decided", service=projection.service)
        aside = Aside(Folding(projection.domain))
        ends = await _fill(projection, engine, progress, aside)
        async with engine.begin() as connection:
            await connection.execute(
                text(f"INSERT INTO {OPERATIONAL}.inbox SELECT * FROM {shadow.SHADOW}.inbox ON CONFLICT DO NOTHING")
            )
            values = [{"topic": topic, "partition": number} for topic, number in sorted(ends)]
            await connection.execute(store.INSERT_POSITION, values)
            await store.move_positions(connection, ends)
            await _keep(connection, aside)
            for partition in ends:
                await rows.flag(connection, partition)
            empty = await shadow.swap(connection, sorted(projection.domain.aggregates), datetime.now(UTC))
            await connection.execute(text(f"DROP SCHEMA {empty} CASCADE"))
        result |= {"records": progress.done, "set_aside": len(aside.letters)}
    _log.info("restored", service=projection.service, records=progress.done, set_aside=len(aside.letters))
    return True


async def _is_new(engine: AsyncEngine) -> bool:
    async with engine.connect() as connection:
        return not any((await store.positions(connection)).values())


async def _has_spoken(projection: Projection) -> bool:
    """Whether the log holds an event of this service; looked for from the front, where it will lie if there is one."""
    own = projection.domain.source.encode()
    async for chunk in log.read(projection.cluster, await log.bounds(projection.cluster, projection.topics)):
        if any(name == "ce_source" and value == own for record in chunk for name, value in record.headers):
            return True
    return False


async def _keep(connection: AsyncConnection, aside: Aside) -> None:
    """What was left out becomes dead letters; they do not count as applied, so no inbox may know them."""
    if not aside.letters:
        return
    await rows.insert(connection, aside.letters)
    await connection.execute(_FORGET)


async def _fill(projection: Projection, engine: AsyncEngine, progress: Progress, aside: Aside) -> dict[Partition, int]:
    """Fold the whole log into a shadow; returns the ends up to which it was folded."""
    async with engine.begin() as connection:
        await shadow.create(connection, sorted(projection.domain.aggregates))
        withheld = await rows.places(connection)
    spans = await log.bounds(projection.cluster, projection.topics)
    if gone := {f"{topic}:{number}": begin for (topic, number), (begin, _) in spans.items() if begin}:
        _log.warning("the log has lost its first records: what they said is lost", service=projection.service, gone=gone)
    filling = store.connect(
        projection.database_url, projection=shadow.SHADOW, pool_size=2, statement_seconds=store.MAINTENANCE_SECONDS
    )
    begins = {partition: begin for partition, (begin, _) in spans.items()}
    fold = Fold(filling, Folding(projection.domain), projection.cluster, begins, aside=aside)

    async def note(records: int) -> None:
        progress.done += records
        await progress.note()

    progress.phase, progress.total = "reading the log", sum(end - begin for begin, end in spans.values())
    try:
        while True:
            ends = {partition: end for partition, (_, end) in spans.items()}
            await fold.up_to(ends, withheld, note)
            spans = await log.bounds(projection.cluster, projection.topics)
            left = sum(end - ends.get(partition, 0) for partition, (_, end) in spans.items())
            if left <= _NEAR_RECORDS and not (fold.early and left):
                fold.complete()
                return ends
    finally:
        await filling.dispose()
