"""Why: fills a shadow from the log with the live code of a batch, strictly: the first record that fails ends it."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aiokafka import ConsumerRecord
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.envelope import Event, Unreadable, decode
from schemas.ids import new_id
from services.chassis import log, store
from services.chassis.aggregate import Domain
from services.chassis.batch import Records, apply_batch
from services.chassis.log import Range
from services.chassis.records import Partition, Place, appended_at, place_of
from services.chassis.unit import Unit

Note = Callable[[int], Awaitable[None]]


async def _silent(_records: int) -> None:
    """Nobody wants to know."""


@dataclass
class Fold:
    """A shadow being filled. `domain` must only fold."""

    engine: AsyncEngine
    """Its search path begins with the shadow."""
    domain: Domain
    bootstrap: str
    next: dict[Partition, int] = field(default_factory=dict)
    """The first offset of each partition that is not folded yet."""
    left_out: set[Place] = field(default_factory=set)
    """Records that were withheld when they were passed."""

    async def up_to(self, ends: Mapping[Partition, int], withheld: set[Place], note: Note = _silent) -> None:
        """Fold every record below `ends`, but for those that the live service has withheld; `note` is told how many were read.

        Raises RecordFailure and the errors of broker and database.
        """
        ranges: dict[Partition, Range] = {p: (self.next.get(p, 0), end) for p, end in ends.items()}
        if not ranges:
            return
        async with self.engine.begin() as connection:
            await connection.execute(store.INSERT_POSITION, [{"topic": t, "partition": p} for t, p in sorted(ranges)])
        async for chunk in log.read(self.bootstrap, ranges):
            places = [place_of(record) for record in chunk]
            self.left_out |= withheld.intersection(places)
            await self._apply([record for record, place in zip(chunk, places, strict=True) if place not in withheld])
            await note(len(chunk))
        self.next |= ends

    async def _apply(self, records: Iterable[ConsumerRecord]) -> None:
        groups: dict[Partition, list[ConsumerRecord]] = {}
        for record in records:
            groups.setdefault((record.topic, record.partition), []).append(record)
        if not groups:
            return
        typed: Records = dict(groups)
        await apply_batch(self.engine, self.domain, None, typed, dict.fromkeys(groups, 0))

    async def ahead(self, ends: Mapping[Partition, int], waiting: Iterable[tuple[bytes, list[tuple[str, bytes]]]]) -> None:
        """Fold the service's own events beyond its positions: the tail of the log up to `ends`, then its outbox."""
        tail = {p: (self.next.get(p, 0), end) for p, end in ends.items()}
        events = await own_events(self.domain, self.bootstrap, tail, waiting)
        if not events:
            return
        async with self.engine.begin() as connection:
            refs = {ref for event in events for ref in self.domain.touches(event)}
            rows = await store.lock_rows(connection, self.domain, refs)
            unit = Unit(self.domain, rows, datetime.now(UTC), new_id)
            for event in events:
                unit.fold_ahead(event)
            await store.save_rows(connection, self.domain, rows)


async def own_events(
    domain: Domain,
    bootstrap: str,
    tail: Mapping[Partition, Range],
    waiting: Iterable[tuple[bytes, list[tuple[str, bytes]]]],
) -> list[Event]:
    """The service's own numbered events in the tail of its log, then those in its outbox; some may be in both."""
    found: list[Event] = []
    now = datetime.now(UTC)
    async for chunk in log.read(bootstrap, tail):
        found += _own(domain, ((record.value, record.headers, appended_at(record)) for record in chunk))
    return found + _own(domain, ((value, headers, now) for value, headers in waiting))


def _own(
    domain: Domain, records: Iterable[tuple[bytes | None, Iterable[tuple[str, bytes | None]], datetime]]
) -> list[Event]:
    found = []
    for value, headers, at in records:
        try:
            event = decode(value, headers, domain.handles, at)
        except Unreadable:
            continue
        if isinstance(event, Event) and event.source == domain.source and event.sequence is not None:
            found.append(event)
    return found
