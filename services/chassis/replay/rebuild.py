"""Verify and rebuild: the log folded into a shadow while the projection serves, then compared, or swapped in (rule 7).

Under the fence the shadow is brought to exactly the live positions, then to the service's own events beyond them. Until
the swap commits nothing of the live projection is touched, so a cancel or a kill at any point is harmless.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from pydantic import Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.base import Frozen
from services.chassis.kernel import log, store
from services.chassis.kernel.deadletters import repository
from services.chassis.kernel.records import Partition, RecordId
from services.chassis.kernel.tables import PROJECTION
from services.chassis.replay import runs, shadow
from services.chassis.replay.checks import ReplayRefused, examine
from services.chassis.replay.compare import TableComparison, compare
from services.chassis.replay.fence import Fenced, fence
from services.chassis.replay.fold import Fold
from services.chassis.replay.projection import Folding, Projection
from services.chassis.replay.runs import Busy, EngineOfRun, Progress

_NEAR_RECORDS = 2000
"""So few records are left for the fence at most, if the log does not grow faster than it is read."""
_PASSES = 20
_ATTEMPTS = 3
_ISOLATION = "REPEATABLE READ"

OnProgress = Callable[[Progress], None]
"""Hears of each step forward."""


class Verification(Frozen):
    """What a verify found: the live projection against the log, at one moment."""

    service: str
    records: int = Field(description="Records of the log that were folded.")
    tables: tuple[TableComparison, ...]

    @property
    def rows(self) -> int:
        """Live rows that were compared."""
        return sum(table.rows for table in self.tables)

    @property
    def differences(self) -> int:
        """Rows that are not what the log says."""
        return sum(table.differences for table in self.tables)


class Rebuilt(Verification):
    """What a rebuild changed; the differences are those of the version before."""

    old_version: str = Field(description="Schema in which the version before lies until it is dropped.")


async def verify(
    projection: Projection, *, accept_incomplete: bool = False, told: OnProgress = lambda _: None
) -> Verification:
    """Compare the live projection with the log, row by row. Raises Refused, Busy, RecordFailure and the servers' errors."""
    async with engine_of(projection) as engine:
        begins = await examine(projection, engine, accept_incomplete=accept_incomplete)
        async with runs.running(engine, "verify") as (progress, result):
            async with _snapshot(engine) as snapshot:
                async with _brought_up(projection, engine, begins, progress, told):
                    await snapshot.execute(text("SELECT 1"))
                await _phase(progress, told, "comparing")
                tables = await compare(snapshot, projection.domain.aggregates, PROJECTION, shadow.SHADOW)
            found = Verification(service=projection.service, records=progress.done, tables=tables)
            await _drop(engine, progress)
            result |= {"differences": found.differences, "rows": found.rows}
            return found


async def rebuild(projection: Projection, *, accept_incomplete: bool = False, told: OnProgress = lambda _: None) -> Rebuilt:
    """Put what the log says in the live projection's place, in one transaction. Raises as `verify` does."""
    async with engine_of(projection) as engine:
        begins = await examine(projection, engine, accept_incomplete=accept_incomplete)
        async with runs.running(engine, "rebuild") as (progress, result):
            async with _snapshot(engine) as snapshot:
                async with _brought_up(projection, engine, begins, progress, told) as still:
                    await snapshot.execute(text("SELECT 1"))
                    await _phase(progress, told, "swapping")
                    old = await shadow.swap(still.connection, sorted(projection.domain.aggregates), datetime.now(UTC))
                    await progress.require(still.connection)
                await _phase(progress, told, "comparing")
                tables = await compare(snapshot, projection.domain.aggregates, old, PROJECTION)
            found = Rebuilt(service=projection.service, records=progress.done, tables=tables, old_version=old)
            result |= {"differences": found.differences, "rows": found.rows, "old_version": old}
            return found


async def drop_old(projection: Projection) -> list[str]:
    """Remove the versions that swaps left; returns their schemas."""
    async with engine_of(projection) as engine, engine.begin() as connection:
        names = await shadow.old_versions(connection)
        for name in names:
            await connection.execute(text(f"DROP SCHEMA {name} CASCADE"))
    return names


@asynccontextmanager
async def engine_of(projection: Projection) -> AsyncIterator[AsyncEngine]:
    """An engine on the live database, for the block."""
    engine = store.connect(projection.database_url, pool_size=4, statement_seconds=store.MAINTENANCE_SECONDS)
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def _snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection whose first statement fixes what it sees."""
    async with engine.connect() as connection:
        yield await connection.execution_options(isolation_level=_ISOLATION)
        await connection.rollback()


@asynccontextmanager
async def _brought_up(
    projection: Projection, engine: AsyncEngine, begins: dict[Partition, int], progress: Progress, told: OnProgress
) -> AsyncIterator[Fenced]:
    """A shadow that says, under the fence, what the log says at the live positions. It is dropped when something fails."""
    for _attempt in range(_ATTEMPTS):
        async with engine.begin() as connection:
            await shadow.create(connection, sorted(projection.domain.aggregates))
            await progress.require(connection)
        filling = store.connect(
            projection.database_url, projection=shadow.SHADOW, pool_size=2, statement_seconds=store.MAINTENANCE_SECONDS
        )
        fold = Fold(EngineOfRun(filling, progress), Folding(projection.domain), projection.cluster, dict(begins))
        try:
            await _catch_up(projection, fold, engine, progress, told)
            async with fence(engine, projection.domain.aggregates) as still:
                withheld = await withheld_now(still.connection)
                if fold.left_out - withheld:  # retried meanwhile: they are in the live rows and not in the shadow
                    continue
                await fold.up_to(of_topics(projection, still.positions), withheld)
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
        f"dead letters were retried during each of {_ATTEMPTS} attempts; try again when nobody retries them"
    )


async def _catch_up(projection: Projection, fold: Fold, engine: AsyncEngine, progress: Progress, told: OnProgress) -> None:
    """Fold until little is left, while the live service goes on."""
    begins = dict(fold.next)
    progress.done = 0

    async def note(records: int) -> None:
        progress.done += records
        told(progress)
        await progress.note()

    for _ in range(_PASSES):
        async with engine.connect() as connection:
            positions = of_topics(projection, await store.positions(connection))
            withheld = await withheld_now(connection)
        ends = {partition: max(begins.get(partition, 0), end) for partition, end in positions.items()}
        progress.total = sum(end - begins.get(partition, 0) for partition, end in ends.items())
        left = sum(end - fold.next.get(partition, 0) for partition, end in ends.items())
        progress.phase = "reading the log"
        if left <= _NEAR_RECORDS and progress.done:
            break
        await fold.up_to(ends, withheld, note)
        if left <= _NEAR_RECORDS:
            break
    async with fold.engine.begin() as connection:
        for table in fold.domain.aggregates:
            await connection.execute(text(f"ANALYZE {shadow.SHADOW}.{table}"))
    await _phase(progress, told, "catching up under the fence")


def of_topics(projection: Projection, positions: dict[Partition, int]) -> dict[Partition, int]:
    """The positions in the log that the projection is made of: not those of lossy topics."""
    return {partition: offset for partition, offset in positions.items() if partition[0] in projection.topics}


async def withheld_now(connection: AsyncConnection) -> set[RecordId]:
    """Records that the live service has not applied, though it is past them."""
    return await repository.places(connection)


async def _phase(progress: Progress, told: OnProgress, phase: str) -> None:
    progress.phase = phase
    told(progress)
    await progress.note(force=True)


async def _drop(engine: AsyncEngine, progress: Progress) -> None:
    """Remove the shadow, where it is this run's."""
    with suppress(Busy):
        async with engine.begin() as connection:
            await shadow.drop(connection)
            await progress.require(connection)
