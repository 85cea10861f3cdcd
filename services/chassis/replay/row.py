"""Rebuilds one row from the log, for the case that only one job or model is in doubt and not the whole projection."""

from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.envelope import Event
from services.chassis.kernel import log, store
from services.chassis.kernel.aggregate import Domain, Ref
from services.chassis.kernel.numbering import EarlyEvents, Elsewhere
from services.chassis.kernel.records import Partition, Record, RecordId, logged, record_id_of
from services.chassis.kernel.statements import INSERT_SWEEP
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.batch import RecordFailure
from services.chassis.kernel.transaction.folding import FoldedRows, Incoming
from services.chassis.kernel.transaction.inbox import Sightings, exempt
from services.chassis.kernel.transaction.loading import lock_rows
from services.chassis.kernel.transaction.writing import write
from services.chassis.replay import runs, statements
from services.chassis.replay.checks import ReplayRefused, examine
from services.chassis.replay.fence import fence
from services.chassis.replay.fold import opened, own_events
from services.chassis.replay.projection import Projection
from services.chassis.replay.reading import in_parts
from services.chassis.replay.rebuild import OnProgress, dead_letters_now, engine_of, of_topics


@dataclass
class RowFold:
    """Folds one aggregate's row from the records that touch it, without the rows of others and without an inbox table."""

    domain: Domain
    ref: Ref
    records: int = 0
    """Number of records that touch the row."""
    early: EarlyEvents = field(default_factory=EarlyEvents)
    """Own events whose predecessors were not passed yet."""
    _sightings: Sightings = field(default_factory=Sightings)
    _rows: FoldedRows = field(init=False)

    def __post_init__(self) -> None:
        rows = {self.ref: AggregateRow.absent(self.domain, self.ref)}
        self._rows = FoldedRows(self.domain, rows, early=self.early, elsewhere=Elsewhere())

    @property
    def row(self) -> AggregateRow:
        """The row as folded so far."""
        return self._rows.rows[self.ref]

    def fold(self, event: Event, record: Record | None) -> None:
        """Fold `event` once, even if it is passed again; `record` is None for an own event beyond the positions."""
        if not self._rows.touched(event):
            return
        self.records += 1
        if record is None:
            self._rows.fold_ahead(event)
        elif not exempt(self.domain, event) and self._sightings.repeated(record, event):
            self._rows.pass_over(Incoming(event, logged(record)))
        else:
            self._rows.take(Incoming(event, logged(record)))


async def rebuild_row(
    projection: Projection, ref: Ref, *, accept_incomplete: bool = False, on_progress: OnProgress = lambda _: None
) -> bool:
    """Rebuild one row from the log; returns whether that changed it.

    Raises ReplayRefused also for a key that neither the log nor the projection has, and what `verify` raises.
    """
    async with engine_of(projection) as engine:
        begins = await examine(projection, engine, accept_incomplete=accept_incomplete)
        async with runs.running(engine, "rebuild") as (progress, result):
            fold = RowFold(projection.domain, ref)
            async with engine.connect() as connection:
                ends, dead_letters = (
                    of_topics(projection, await store.positions(connection)),
                    await dead_letters_now(connection),
                )
            progress.phase, progress.total = "reading the log", sum(ends[p] - begins.get(p, 0) for p in ends)
            passed: set[RecordId] = set()

            async def read(ranges: dict[Partition, log.Range]) -> None:
                async with log.read(projection.cluster, ranges) as chunks:
                    async for chunk in chunks:
                        async for part in in_parts(chunk):
                            for record in part:
                                if (place := record_id_of(record)) in dead_letters:
                                    passed.add(place)
                                elif event := opened(projection.domain, record):
                                    try:
                                        fold.fold(event, record)
                                    except Exception as error:
                                        raise RecordFailure(record, error) from error
                        progress.done += len(chunk)
                        on_progress(progress)
                        await progress.note()

            await read({p: (begins.get(p, 0), end) for p, end in ends.items()})
            async with fence(engine, projection.domain.aggregates) as still:
                if passed - await dead_letters_now(still.connection):
                    raise ReplayRefused("a dead letter was retried meanwhile; try again")
                await read(
                    {p: (ends.get(p, begins.get(p, 0)), end) for p, end in of_topics(projection, still.positions).items()}
                )
                spans = await log.bounds(projection.cluster, projection.topics)
                tail = {p: (still.positions.get(p, begin), end) for p, (begin, end) in spans.items()}
                for event in await own_events(projection.domain, projection.cluster, tail, still.waiting):
                    fold.fold(event, None)
                if missing := fold.early.missing():
                    raise ReplayRefused(missing)
                changed = await _write(still.connection, projection, ref, fold)
                await progress.require(still.connection)
            result |= {"table": ref.aggregate, "key": ref.key, "changed": changed}
            return changed


async def _write(connection: AsyncConnection, projection: Projection, ref: Ref, fold: RowFold) -> bool:
    read, key = statements.row_as_text(ref.aggregate), {"key": ref.key}
    before = await connection.scalar(read, key)
    if not fold.records:
        if before is None:
            raise ReplayRefused(f"{ref.aggregate} {ref.key!r}: neither the log nor the projection has it; check the key")
        await connection.execute(statements.delete_row(ref.aggregate), key)
        return True
    await lock_rows(connection, projection.domain, [ref])
    await write(connection, projection.domain, {ref: fold.row})
    changed = bool(before != await connection.scalar(read, key))
    if changed:
        await connection.execute(INSERT_SWEEP, {"aggregate": ref.aggregate, "key": ref.key})
    return changed


def row_ref(projection: Projection, key: str, table: str | None) -> Ref:
    """The row with this key; `table` may be None where the projection has only one. Raises ReplayRefused."""
    tables = sorted(projection.domain.aggregates)
    if table is None and len(tables) == 1:
        (table,) = tables
    if table not in tables:
        given = "is needed" if table is None else f"{table!r} is not a table of this projection"
        raise ReplayRefused(f"table {given}; use {', '.join(tables)}")
    return Ref(table, key)
