"""Verifies or rebuilds a projection: folds the log into a shadow while the service runs, then compares or swaps it (rule 7).

Under the fence the shadow is brought to exactly the live positions, then to the service's own events beyond them. The live
projection does not change until the swap commits, so a cancel or a kill at any point is harmless.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.base import Frozen
from services.chassis.kernel import log, store
from services.chassis.kernel.deadletters import repository
from services.chassis.kernel.records import Partition, RecordId
from services.chassis.kernel.tables import PROJECTION
from services.chassis.replay import runs, shadow, statements
from services.chassis.replay.checks import ReplayRefused, examine
from services.chassis.replay.compare import TableComparison, compare
from services.chassis.replay.fence import Fenced, fence
from services.chassis.replay.fold import Fold
from services.chassis.replay.projection import Folding, Projection
from services.chassis.replay.runs import Busy, EngineOfRun, Progress

_NEAR_RECORDS = 2000
"""The most records left to fold under the fence, unless the log grows faster than it is read."""
_PASSES = 20
_ATTEMPTS = 3
_ISOLATION = "REPEATABLE READ"

OnProgress = Callable[[Progress], None]
"""Is called with the progress after each step."""


class Verification(Frozen):
    """The result of a verify: the live projection compared with the log, at one moment."""

    service: str
    records: int = Field(description="Number of records of the log that were folded.")
    tables: tuple[TableComparison, ...]

    @property
    def rows(self) -> int:
        """Number of live rows that were compared."""
        return sum(table.rows for table in self.tables)

    @property
    def differences(self) -> int:
        """Number of rows that differ from the log."""
        return sum(table.differences for table in self.tables)


class Rebuilt(Verification):
    """The result of a rebuild; the differences are those of the previous version."""

    old_version: str = Field(description="Schema of the previous version, until it is dropped.")


async def verify(
    projection: Projection, *, accept_incomplete: bool = False, on_progress: OnProgress = lambda _: None
) -> Verification:
    """Compare the live projection with the log, row by row. Raises ReplayRefused, Busy, RecordFailure and the servers' errors."""
    async with engine_of(projection) as engine:
        begins = await examine(projection, engine, accept_incomplete=accept_incomplete)
        async with runs.running(engine, "verify") as (progress, result):
            async with _snapshot(engine) as snapshot:
                async with _brought_up(projection, engine, begins, progress, on_progress):
                    await snapshot.execute(statements.START_SNAPSHOT)
                await _phase(progress, on_progress, "comparing")
                tables = await compare(snapshot, projection.domain.aggregates, PROJECTION, statements.SHADOW)
            found = Verification(service=projection.service, records=progress.done, tables=tables)
            await _drop(engine, progress)
            result |= {"differences": found.differences, "rows": found.rows}
            return found


async def rebuild(
    projection: Projection, *, accept_incomplete: bool = False, on_progress: OnProgress = lambda _: None
) -> Rebuilt:
    """Replace the live projection by one folded from the log, in one transaction. Raises as `verify` does."""
    async with engine_of(projection) as engine:
        begins = await examine(projection, engine, accept_incomplete=accept_incomplete)
        async with runs.running(engine, "rebuild") as (progress, result):
            async with _snapshot(engine) as snapshot:
                async with _brought_up(projection, engine, begins, progress, on_progress) as still:
                    await snapshot.execute(statements.START_SNAPSHOT)
                    await _phase(progress, on_progress, "swapping")
                    old = await shadow.swap(still.connection, sorted(projection.domain.aggregates), datetime.now(UTC))
                    await progress.require(still.connection)
                await _phase(progress, on_progress, "comparing")
                tables = await compare(snapshot, projection.domain.aggregates, old, PROJECTION)
            found = Rebuilt(service=projection.service, records=progress.done, tables=tables, old_version=old)
            result |= {"differences": found.differences, "rows": found.rows, "old_version": old}
            return found


async def drop_old(projection: Projection) -> list[str]:
    """Drop the old versions that swaps left; returns their schemas."""
    async with engine_of(projection) as engine, engine.begin() as connection:
        names = await shadow.old_versions(connection)
        for name in names:
            await connection.execute(statements.drop_schema(name))
    return names


@asynccontextmanager
async def engine_of(projection: Projection) -> AsyncIterator[AsyncEngine]:
    """Yield an engine on the live database, disposed of when the block ends."""
    engine = store.connect(projection.database_url, pool_size=4, statement_seconds=store.MAINTENANCE_SECONDS)
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def _snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Yield a connection whose first statement fixes its snapshot."""
    async with engine.connect() as connection:
        yield await connection.execution_options(isolation_level=_ISOLATION)
        await connection.rollback()


@asynccontextmanager
async def _brought_up(
    projection: Projection, engine: AsyncEngine, begins: dict[Partition, int], progress: Progress, on_progress: OnProgress
) -> AsyncIterator[Fenced]:
    """Fills a shadow from the log up to the live positions, and holds the fence during the block. Drops the shadow on an error."""
    for _attempt in range(_ATTEMPTS):
        async with engine.begin() as connection:
            await shadow.create(connection, sorted(projection.domain.aggregates))
            await progress.require(connection)
        filling = store.connect(
            projection.database_url, projection=statements.SHADOW, pool_size=2, statement_seconds=store.MAINTENANCE_SECONDS
        )
        fold = Fold(EngineOfRun(filling, progress), Folding(projection.domain), projection.cluster, dict(begins))
        try:
            await _catch_up(projection, fold, engine, progress, on_progress)
            async with fence(engine, projection.domain.aggregates) as still:
                dead_letters = await dead_letters_now(still.connection)
                if fold.left_out - dead_letters:  # retried meanwhile: the live rows have them and the shadow does not
                    continue
                await fold.up_to(of_topics(projection, still.positions), dead_letters)
                ends = {
                    partition: end
                    for partition, (_, end) in (await log.bounds(projection.cluster, projection.topics)).items()
                }
                await fold.ahead(ends, still.waiting)
                yield still
                return
        except BaseException:
            await _drop(engine, progress)
            raise
        finally:
            await filling.dispose()
    await _drop(engine, progress)
    raise ReplayRefused(
        f"dead letters were retried during each of {_ATTEMPTS} attempts; try again while nobody retries them"
    )


async def _catch_up(
    projection: Projection, fold: Fold, engine: AsyncEngine, progress: Progress, on_progress: OnProgress
) -> None:
    """Fold until at most `_NEAR_RECORDS` are left, while the live service runs."""
    begins = dict(fold.next)
    progress.done = 0

    async def note(records: int) -> None:
        progress.done += records
        on_progress(progress)
        await progress.note()

    for _ in range(_PASSES):
        async with engine.connect() as connection:
            positions = of_topics(projection, await store.positions(connection))
            dead_letters = await dead_letters_now(connection)
        ends = {partition: max(begins.get(partition, 0), end) for partition, end in positions.items()}
        progress.total = sum(end - begins.get(partition, 0) for partition, end in ends.items())
        left = sum(end - fold.next.get(partition, 0) for partition, end in ends.items())
        progress.phase = "reading the log"
        if left <= _NEAR_RECORDS and progress.done:
            break
        await fold.up_to(ends, dead_letters, note)
        if left <= _NEAR_RECORDS:
            break
    async with fold.engine.begin() as connection:
        for table in fold.domain.aggregates:
            await connection.execute(statements.analyze(table))
    await _phase(progress, on_progress, "catching up under the fence")


def of_topics(projection: Projection, positions: dict[Partition, int]) -> dict[Partition, int]:
    """Return the positions in the topics of the projection, without those in topics of limited retention."""
    return {partition: offset for partition, offset in positions.items() if partition[0] in projection.topics}


async def dead_letters_now(connection: AsyncConnection) -> set[RecordId]:
    """Return the ids of the live service's dead letters."""
    return await repository.record_ids(connection)


async def _phase(progress: Progress, on_progress: OnProgress, phase: str) -> None:
    progress.phase = phase
    on_progress(progress)
    await progress.note(force=True)


async def _drop(engine: AsyncEngine, progress: Progress) -> None:
    """Drop the shadow, unless another run has begun."""
    with suppress(Busy):
        async with engine.begin() as connection:
            await shadow.drop(connection)
            await progress.require(connection)
