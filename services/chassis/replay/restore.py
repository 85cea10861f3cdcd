"""Fills a new database from the log before its service starts, so that the service repeats no earlier decision (rule 5).

A decision that was only in the lost outbox is taken again; nobody has seen it. The content of the lost operational tables
(leases, progress) follows from the rows, or may be lost.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.chassis.kafka.group import group_of, members_of
from services.chassis.kafka.metadata import ask_once, ids_of
from services.chassis.kernel import log, store
from services.chassis.kernel.consuming.identity import rows as identity
from services.chassis.kernel.deadletters import repository
from services.chassis.kernel.records import Partition, is_of
from services.chassis.kernel.statements import INSERT_POSITION
from services.chassis.kernel.transaction.batch import RecordFailure
from services.chassis.process.logging import get_logger
from services.chassis.process.transient import is_transient
from services.chassis.replay import runs, shadow, statements
from services.chassis.replay.checks import ReplayRefused
from services.chassis.replay.fold import Fold
from services.chassis.replay.projection import Folding, Projection
from services.chassis.replay.runs import Busy, EngineOfRun, Progress
from services.chassis.replay.skipped import SkippedRecords

_log = get_logger(__name__)
_NEAR_RECORDS = 1000
_SHOWN = 20
_LOOK_SECONDS = 2.0


class NotRestored(Exception):
    """The log cannot fill this database; an operator must decide, and until then the service consumes and decides
    nothing."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """An operator's acceptance of a log that lost its first records and of own events that cannot be folded; stored with the run."""

    by: str


async def restore(projection: Projection, engine: AsyncEngine, accepted: Acceptance | None = None) -> bool:
    """Restore a database that has applied nothing, if the log has events of its service; returns whether it did.

    One process restores; it raises Busy in others, and ReplayRefused while the consumer group has a member. A record that cannot be
    folded becomes a dead letter. Raises NotRestored where records are lost, an own event cannot be folded, or more than
    `MAX_FAILED` others cannot, unless that is `accepted`; and the servers' errors. A kill at any point is harmless.
    """
    if not await is_new(engine) or not await _has_spoken(projection):
        return False
    await _nobody_lives(projection)
    async with runs.running(engine, "restore") as (progress, result):
        if not await is_new(engine):
            return False
        _log.warning("new database, old log: restoring from the log before anything is decided", service=projection.service)
        skipped = SkippedRecords(Folding(projection.domain), accepting=accepted is not None)
        lost = await _lost(projection)
        if lost and accepted is None:
            raise NotRestored(f"the log has lost its first records: {lost}. Their events are lost; {_remedy(projection)}")
        before = await ask_once(projection.cluster, projection.topics)
        try:
            ends = await _fill(projection, engine, progress, skipped)
        except RecordFailure as failure:
            raise NotRestored(
                f"{failure}. A version that can fold it restores the database when it starts; {_remedy(projection)}"
            ) from failure
        found = await ask_once(projection.cluster, projection.topics)
        if (found.cluster_id, ids_of(found)) != (before.cluster_id, ids_of(before)):
            raise ReplayRefused(
                "a topic was deleted and created again during the restore; the next start restores from the new topic"
            )
        async with engine.begin() as connection:
            await _still_new(connection)
            await connection.execute(statements.ADD_INBOX)
            values = [{"topic": topic, "partition": number} for topic, number in sorted(ends)]
            await connection.execute(INSERT_POSITION, values)
            await store.move_positions(connection, ends)
            await identity.note(connection, found, projection.topics)
            await _keep(connection, skipped)
            for partition in ends:
                await repository.flag(connection, partition)
            empty = await shadow.swap(connection, sorted(projection.domain.aggregates), datetime.now(UTC))
            await connection.execute(statements.drop_schema(empty))
            await progress.require(connection)
        result |= {"records": progress.done, "set_aside": len(skipped.letters)}
        if accepted is not None:
            passed = skipped.passed_over
            result |= {
                "accepted_by": accepted.by,
                "lost": lost,
                "passed_over": len(passed),
                "first_passed_over": passed[:_SHOWN],
            }
    _log.info(
        "restored", service=projection.service, records=progress.done, set_aside=len(skipped.letters),
        passed_over=len(skipped.passed_over),
    )  # fmt: skip
    return True


def _remedy(projection: Projection) -> str:
    return (
        f"`neuroweaver projections restore {projection.service} --accept-incomplete` continues with the records that can "
        "be folded, and records this. Until then this service consumes and decides nothing"
    )


async def _nobody_lives(projection: Projection) -> None:
    """Raises ReplayRefused while a process of the service is in its consumer group, since it still decides."""
    group = group_of(projection.service)
    if members := await members_of(projection.cluster, group):
        raise ReplayRefused(
            f"a restore waits until group {group} has no members: {', '.join(map(str, members[:_SHOWN]))} still in it. "
            "Stop that process; a dead one leaves the group after its session time-out"
        )


async def _lost(projection: Projection) -> str:
    """Return a message that names the partitions whose first records were removed; empty where there are none."""
    spans = await log.bounds(projection.cluster, projection.topics)
    gone = [f"{topic}:{number} begins at offset {begin}" for (topic, number), (begin, _) in sorted(spans.items()) if begin]
    return ", ".join(gone)


async def _still_new(connection: AsyncConnection) -> None:
    """Raises Busy if another process restored the database while this one was frozen."""
    await connection.execute(statements.LOCK_POSITIONS_TABLE)
    if any((await store.positions(connection)).values()):
        raise Busy("another process has restored this database meanwhile")


async def is_new(engine: AsyncEngine) -> bool:
    """Return whether a database has applied nothing.

    After an operator accepted another log positions are 0 too, but identities are stored.
    """
    async with engine.connect() as connection:
        return not any((await store.positions(connection)).values()) and not await identity.kept(connection)


async def until_restored(engine: AsyncEngine) -> None:
    """Wait until another process has restored the database; transient errors are ignored."""
    while True:
        try:
            if not await is_new(engine):
                return
        except Exception as error:
            if not is_transient(error):
                raise
        await asyncio.sleep(_LOOK_SECONDS)


async def _has_spoken(projection: Projection) -> bool:
    """Return whether the log has an event of this service; the search begins at the start, where the first one usually
    is."""
    async with log.read(projection.cluster, await log.bounds(projection.cluster, projection.topics)) as chunks:
        async for chunk in chunks:
            if any(is_of(record, projection.domain.source) for record in chunk):
                return True
    return False


async def _keep(connection: AsyncConnection, skipped: SkippedRecords) -> None:
    """Store the skipped records as dead letters and remove them from the inbox, since they are not applied."""
    if not skipped.letters:
        return
    await repository.insert(connection, skipped.letters)
    await connection.execute(statements.FORGET_DEAD_LETTERS)


async def _fill(
    projection: Projection, engine: AsyncEngine, progress: Progress, skipped: SkippedRecords
) -> dict[Partition, int]:
    """Fold the whole log into a shadow; returns the ends up to which it was folded."""
    async with engine.begin() as connection:
        await shadow.create(connection, sorted(projection.domain.aggregates))
        await progress.require(connection)
        dead_letters = await repository.record_ids(connection)
    spans = await log.bounds(projection.cluster, projection.topics)
    filling = store.connect(
        projection.database_url, projection=statements.SHADOW, pool_size=2, statement_seconds=store.MAINTENANCE_SECONDS
    )
    begins = {partition: begin for partition, (begin, _) in spans.items()}
    fold = Fold(EngineOfRun(filling, progress), Folding(projection.domain), projection.cluster, begins, skipped=skipped)

    async def note(records: int) -> None:
        progress.done += records
        await progress.note()

    progress.phase, progress.total = "reading the log", sum(end - begin for begin, end in spans.values())
    try:
        while True:
            ends = {partition: end for partition, (_, end) in spans.items()}
            await fold.up_to(ends, dead_letters, note)
            spans = await log.bounds(projection.cluster, projection.topics)
            left = sum(end - ends.get(partition, 0) for partition, (_, end) in spans.items())
            if left <= _NEAR_RECORDS and not (fold.early and left):
                if (missing := fold.early.missing()) and not skipped.accepting:
                    raise NotRestored(f"{missing}. {_remedy(projection)}")
                skipped.passed_over += await fold.over_gaps() if missing else []
                return ends
    finally:
        await filling.dispose()
