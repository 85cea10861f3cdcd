"""Why: one PostgreSQL transaction per batch: fence, inbox, fold, projection, outbox, effects, position (design section 4).

A crash at any instruction leaves all of it or nothing; the position that was written is the truth, whatever Kafka's
committed offset says.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.envelope import Event, Unhandled, Unreadable
from schemas.ids import new_id
from services.chassis import store
from services.chassis.aggregate import Domain, Ref
from services.chassis.commands import write_back
from services.chassis.deadletters import limit as limits
from services.chassis.deadletters import parking, rows
from services.chassis.deadletters.limit import Limit
from services.chassis.deadletters.parking import Opened
from services.chassis.deadletters.rows import Fault
from services.chassis.duplicates import entering
from services.chassis.effects import Effects
from services.chassis.loading import lock_rows
from services.chassis.records import Partition, Place, Record, event_in, logged, named, place_of
from services.chassis.surroundings import described
from services.chassis.unit import Incoming, Unit
from services.chassis.writing import NONE_MOVED

Dead = list[tuple[Record, Unreadable]]
Decoded = list[tuple[Record, Event]]


class RecordFailure(Exception):
    """Handling of one record failed for a reason that is not the surroundings."""

    def __init__(self, record: Record, error: Exception) -> None:
        super().__init__(f"{named(place_of(record))}: {described(error)}")
        self.record, self.error = record, error


@dataclass
class Applied:
    """What one transaction did."""

    positions: dict[Partition, int] = field(default_factory=dict)
    """Next offset per partition, as committed."""
    behind: dict[Partition, int] = field(default_factory=dict)
    """Partitions whose records start above their position, with that position: to be rewound."""
    applied: int = 0
    skipped: int = 0
    unhandled: int = 0
    dead: int = 0
    """Records that could not be read, or were to be dead letters."""
    parked: int = 0
    letters: tuple[str, ...] = ()
    """Place and error of each record that is a dead letter now."""
    emitted: tuple[Event, ...] = ()


Records = Mapping[Partition, Sequence[Record]]
NONE_FAILED: Mapping[Place, Fault] = {}


async def apply_batch(
    engine: AsyncEngine,
    domain: Domain,
    effects: Effects | None,
    records: Records,
    stream_start: Mapping[Partition, int],
    *,
    failed: Mapping[Place, Fault] = NONE_FAILED,
    limit: Limit | None = None,
) -> Applied:
    """Apply `records` in one transaction.

    `stream_start` is, per partition, the offset from which the consumer has read without a gap up to the first record
    given here; a partition whose position lies below it is left alone and reported in `behind`. Those in `failed` become
    dead letters instead; `limit` is how much of a partition may be unreadable.
    Raises RecordFailure for a record whose handling fails or that is one too many, and the database's own errors.
    """
    done = Applied()
    async with engine.begin() as connection:
        locked = await store.lock_positions(connection, sorted(records))
        todo: list[Record] = []
        for partition in sorted(records):
            position = locked[partition].next_offset
            if position < stream_start[partition]:
                done.behind[partition] = position
                continue
            fresh = [record for record in records[partition] if record.offset >= position]
            done.skipped += len(records[partition]) - len(fresh)
            done.positions[partition] = fresh[-1].offset + 1 if fresh else position
            todo += fresh
        opened, dead = _open_all(todo, domain, done, failed)
        if limit is not None:
            await _within_limit(connection, limit, dead)
        flagged = [partition for partition in done.positions if locked[partition].withheld]
        decoded = await _keep_apart(connection, domain, opened, failed, flagged, done)
        await fold_all(connection, domain, effects, decoded, done, done.positions)
        if dead:
            await rows.insert(connection, [rows.row_of(record, "unreadable", Fault(str(error))) for record, error in dead])
        if dead or failed:
            await connection.execute(store.NOTIFY, {"channel": store.OUTBOX_CHANNEL, "payload": ""})
        touched = {*flagged, *(place[:2] for place in failed)}
        for partition in sorted(touched & done.positions.keys()):  # only under its position's lock
            await rows.flag(connection, partition)
    done.dead += len(dead)
    done.letters += tuple(f"{named(place_of(record))}: {error}" for record, error in dead)
    return done


async def fold_all(
    connection: AsyncConnection,
    domain: Domain,
    effects: Effects | None,
    decoded: Decoded,
    done: Applied,
    moved: Mapping[Partition, int] = NONE_MOVED,
) -> None:
    """Fold decoded records in order and write what follows, in the caller's transaction, which holds their positions' locks and may
    have them `moved`."""
    inbox = entering(domain, decoded)
    locked = await lock_rows(connection, domain, _refs(domain, decoded), inbox.next)
    inbox.learn(locked.counts)
    again = await inbox.enter(connection)
    unit = Unit(domain, locked.rows, locked.now, new_id)
    seen = _fold(unit, decoded, again)
    await write_back(connection, unit, effects, seen, moved)
    done.applied += len(decoded) - unit.skipped
    done.skipped += unit.skipped
    done.emitted += tuple(unit.emitted)


async def _within_limit(connection: AsyncConnection, limit: Limit, dead: Dead) -> None:
    for partition in sorted({place_of(record)[:2] for record, _ in dead}):
        here = {record.offset: record for record, _ in dead if place_of(record)[:2] == partition}
        if found := await limits.look(connection, limit, partition, sorted(here), unreadable=True):
            raise RecordFailure(here[found[0]], found[1])


async def _keep_apart(
    connection: AsyncConnection,
    domain: Domain,
    opened: Sequence[Opened],
    failed: Mapping[Place, Fault],
    flagged: Iterable[Partition],
    done: Applied,
) -> Decoded:
    """The records that may be folded; the failed ones and those behind them are kept as dead letters."""
    if not failed and not flagged:
        return [(record, event) for record, event in opened if event is not None]
    blocked: dict[Partition, dict[str, int]] = {}
    discarded: set[Place] = set()
    for partition in flagged:
        here = [(record, event) for record, event in opened if place_of(record)[:2] == partition]
        wanted = [name for record, event in here for name in parking.waits_for(domain, record, event)]
        blocked[partition] = await rows.blocking(connection, partition, wanted)
        if here:
            discarded |= await rows.discarded(connection, partition, here[0][0].offset)
    division = parking.divide(domain, opened, failed, blocked, frozenset(discarded))
    if division.rows:
        await rows.insert(connection, division.rows)
        done.letters += tuple(f"{row['topic']}:{row['partition']}:{row['offset']}: {row['error']}" for row in division.rows)
    done.parked += sum(row["state"] == "parked" for row in division.rows)
    done.dead += sum(row["state"] == "failed" for row in division.rows)
    done.skipped += division.given_up
    return division.kept


def _open_all(
    records: Iterable[Record], domain: Domain, done: Applied, failed: Mapping[Place, Fault]
) -> tuple[list[Opened], Dead]:
    opened: list[Opened] = []
    dead: Dead = []
    for record in records:
        try:
            event = event_in(record, domain.handles)
        except Unreadable as error:
            dead.append((record, error))
        except Exception as error:
            if place_of(record) not in failed:
                raise RecordFailure(record, error) from error
            opened.append((record, None))
        else:
            if isinstance(event, Unhandled):
                done.unhandled += 1
            else:
                opened.append((record, event))
    return opened, dead


def _refs(domain: Domain, decoded: Decoded) -> set[Ref]:
    refs: set[Ref] = set()
    for record, event in decoded:
        try:
            refs.update(domain.touches(event))
        except Exception as error:
            raise RecordFailure(record, error) from error
    return refs


def take_in(unit: Unit, record: Record, event: Event, *, repeated: bool) -> None:
    """Fold one record, or pass over a producer's duplicate."""
    incoming = Incoming(event, logged(record))
    if repeated:
        unit.pass_over(incoming)
    else:
        unit.fold(incoming)


def _fold(unit: Unit, decoded: Decoded, again: Set[Place]) -> list[Event]:
    """Fold in order; returns every event seen by effects: those folded and those that touch no aggregate."""
    seen: list[Event] = []
    for record, event in decoded:
        before = len(unit.folded)
        try:
            take_in(unit, record, event, repeated=place_of(record) in again)
        except Exception as error:
            raise RecordFailure(record, error) from error
        seen += unit.folded[before:]
    return seen
