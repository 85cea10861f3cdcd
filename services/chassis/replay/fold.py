"""Fills a shadow from the log with the live `evolve`; the first record that fails ends the fold.

Nobody else writes to a shadow, so rows stay in memory while they change and are copied in bulk, without locks. Otherwise the
fold does the same as a live batch.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.envelope import Event, Unhandled, Unreadable, decode
from schemas.ids import new_id
from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel import log
from services.chassis.kernel.aggregate import Domain, Ref, is_own
from services.chassis.kernel.log import Range
from services.chassis.kernel.numbering import EarlyEvents, OtherWriter
from services.chassis.kernel.records import Partition, Record, RecordId, appended_at, event_in, named, record_id_of
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.batch import RecordFailure, fold_record
from services.chassis.kernel.transaction.inbox import duplicates
from services.chassis.kernel.transaction.loading import read_rows
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.chassis.kernel.transaction.writing import copy_rows, write
from services.chassis.replay.checks import ReplayRefused
from services.chassis.replay.reading import in_parts, read_ahead
from services.chassis.replay.skipped import SkippedRecords
from services.chassis.replay.statements import SHADOW

Note = Callable[[int], Awaitable[None]]
_HELD_BYTES = 8 * 2**20
"""After this many bytes of records the rows in memory are written to the shadow."""


async def _silent(_records: int) -> None:
    """Ignores the number of records read."""


@dataclass
class Fold:
    """Fills a shadow. `domain` must decide nothing (`Folding`)."""

    engine: AsyncEngine
    """An engine whose search path begins with the shadow."""
    domain: Domain
    cluster: Cluster
    next: dict[Partition, int] = field(default_factory=dict)
    """The first offset of each partition that is not folded yet."""
    left_out: set[RecordId] = field(default_factory=set)
    """Records that were skipped because they were dead letters at that time."""
    skipped: SkippedRecords | None = None
    """Collects records that cannot be folded; without it the first of them ends the fold."""
    early: EarlyEvents = field(default_factory=EarlyEvents)
    """Own events whose predecessors are on a partition that is not read that far yet."""
    _rows: dict[Ref, AggregateRow] = field(default_factory=dict)
    """Rows that changed and are not in the shadow yet."""
    _stored: set[Ref] = field(default_factory=set)
    """Those of `_rows` that the shadow has in an earlier form."""
    _spilled: bool = False
    """Whether the shadow has any row."""
    _held: int = 0

    async def up_to(self, ends: Mapping[Partition, int], dead_letters: set[RecordId], note: Note = _silent) -> None:
        """Fold every record below `ends` except the live service's dead letters; calls `note` with the number of records read.

        Raises RecordFailure and the errors of broker and database.
        """
        ranges: dict[Partition, Range] = {p: (self.next.get(p, 0), end) for p, end in ends.items()}
        async with aclosing(read_ahead(self._read(ranges, dead_letters))) as chunks:
            async for count, readable in chunks:
                async with self.engine.begin() as connection:
                    await self._fold(connection, readable)
                await note(count)
        async with self.engine.begin() as connection:
            await self._spill(connection)
        self.next |= ends

    async def _read(
        self, ranges: Mapping[Partition, Range], dead_letters: set[RecordId]
    ) -> AsyncGenerator[tuple[int, list[tuple[Record, Event]]], None]:
        """Yields per chunk the number of records read, and the decoded records to fold."""
        async with log.read(self.cluster, ranges) as chunks:
            async for chunk in chunks:
                left_out = dead_letters.intersection(map(record_id_of, chunk)) if dead_letters else set[RecordId]()
                self.left_out |= left_out
                wanted = [record for record in chunk if record_id_of(record) not in left_out] if left_out else chunk
                readable: list[tuple[Record, Event]] = []
                async for part in in_parts(wanted):
                    readable += [(record, event) for record in part if (event := opened(self.domain, record))]
                yield len(chunk), readable

    async def _fold(self, connection: AsyncConnection, readable: list[tuple[Record, Event]]) -> None:
        again = await duplicates(connection, self.domain, readable)
        await self._load(connection, {ref for record, event in readable for ref in self._touched(record, event)})
        unit = UnitOfWork(self.domain, self._rows, datetime.now(UTC), new_id, early=self.early)
        async for part in in_parts(readable):
            for record, event in part:
                self._fold_one(unit, record, event, repeated=record_id_of(record) in again)
        if self._held > _HELD_BYTES:
            await self._spill(connection)

    def _fold_one(self, unit: UnitOfWork, record: Record, event: Event, *, repeated: bool) -> None:
        if self.skipped is not None:
            self.skipped.fold(unit, record, event, repeated=repeated)
        else:
            try:
                fold_record(unit, record, event, repeated=repeated)
            except Exception as error:
                raise RecordFailure(record, error) from error
        self._held += len(record.value or b"")

    def _touched(self, record: Record, event: Event) -> tuple[Ref, ...]:
        try:
            return self.domain.touches(event)
        except Exception as error:
            if self.skipped is not None:  # its `fold` meets the same error
                return ()
            raise RecordFailure(record, error) from error

    async def _load(self, connection: AsyncConnection, refs: set[Ref]) -> None:
        refs |= {ref for event in self.early.events(refs) for ref in self.domain.touches(event)}
        missing = refs - self._rows.keys()
        if self._spilled:
            found = await read_rows(connection, self.domain, missing)
            self._rows |= found
            self._stored |= found.keys()
            missing -= found.keys()
        self._rows |= {ref: AggregateRow.absent(self.domain, ref) for ref in missing}

    async def _spill(self, connection: AsyncConnection) -> None:
        """Write every row in memory to the shadow."""
        known = {ref: row for ref, row in self._rows.items() if ref in self._stored}
        await write(connection, self.domain, known)
        new = {ref: row for ref, row in self._rows.items() if ref not in self._stored}
        await copy_rows(connection, self.domain, new, SHADOW)
        self._spilled = self._spilled or bool(self._rows)
        self._rows, self._stored, self._held = {}, set(), 0

    async def ahead(self, ends: Mapping[Partition, int], waiting: Iterable[tuple[bytes, list[tuple[str, bytes]]]]) -> None:
        """Fold the service's own events beyond its positions: the tail of the log up to `ends`, then its outbox.

        Raises ReplayRefused where own events are missing, or another deployment wrote one of them.
        """
        tail = {p: (self.next.get(p, 0), end) for p, end in ends.items()}
        events = await own_events(self.domain, self.cluster, tail, waiting)
        async with self.engine.begin() as connection:
            await self._load(connection, {ref for event in events for ref in self.domain.touches(event)})
            unit = UnitOfWork(self.domain, self._rows, datetime.now(UTC), new_id, early=self.early)
            try:
                for event in events:
                    unit.fold_ahead(event)
            except OtherWriter as error:
                raise ReplayRefused(str(error)) from error
            await self._spill(connection)
        self.complete()

    async def over_gaps(self) -> list[str]:
        """Fold own events whose predecessors are lost, if an operator accepts that; returns their record ids."""
        waiting = list(self.early.release())
        async with self.engine.begin() as connection:
            await self._load(connection, {ref for _, event, _ in waiting for ref in self.domain.touches(event)})
            unit = UnitOfWork(self.domain, self._rows, datetime.now(UTC), new_id)
            for owner, event, _ in waiting:
                self._rows[owner].jump_to((event.sequence or 1) - 1)
                unit.fold_ahead(event)
            await self._spill(connection)
        return [named(place[1:]) for _, _, place in waiting if place]

    def complete(self) -> None:
        """Raises ReplayRefused where an own event still waits for its predecessors, which are lost."""
        if missing := self.early.missing():
            raise ReplayRefused(
                f"{missing}; restore the records from a copy of the topic: without them their events are lost"
            )


def opened(domain: Domain, record: Record) -> Event | None:
    """The event in a record; None for an unreadable record or an event that is not handled. Raises RecordFailure."""
    try:
        event = event_in(record, domain.handles)
    except Unreadable:
        return None
    except Exception as error:
        raise RecordFailure(record, error) from error
    return None if isinstance(event, Unhandled) else event


async def own_events(
    domain: Domain,
    cluster: Cluster,
    tail: Mapping[Partition, Range],
    waiting: Iterable[tuple[bytes, list[tuple[str, bytes]]]],
) -> list[Event]:
    """The service's own numbered events in the tail of its log, then those in its outbox; some may be in both."""
    found: list[Event] = []
    now = datetime.now(UTC)
    async with log.read(cluster, tail) as chunks:
        async for chunk in chunks:
            found += _own(domain, ((record.value, record.headers, appended_at(record)) for record in chunk))
    return found + _own(domain, ((value, headers, now) for value, headers in waiting))


def _own(
    domain: Domain, records: Iterable[tuple[bytes | None, Sequence[tuple[str, bytes | None]], datetime]]
) -> list[Event]:
    found = []
    for value, headers, at in records:
        try:
            event = decode(value, headers, domain.handles, at)
        except Unreadable:
            continue
        if isinstance(event, Event) and is_own(domain, event):
            found.append(event)
    return found
