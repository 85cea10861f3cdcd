"""One poll on its way through one PostgreSQL transaction (design section 4): accept, open, lock, fold and decide, write.

A crash at any instruction leaves all of it or nothing; the position that was written is the truth, whatever Kafka's
committed offset says.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.envelope import Event, Unhandled, Unreadable
from schemas.ids import new_id
from services.chassis.kernel import store
from services.chassis.kernel.aggregate import Domain, Ref
from services.chassis.kernel.deadletters import limit as limits
from services.chassis.kernel.deadletters import parking, repository
from services.chassis.kernel.deadletters.limit import DeadLetterLimit
from services.chassis.kernel.deadletters.parking import Division, Opened
from services.chassis.kernel.deadletters.repository import Fault
from services.chassis.kernel.effects import Effects
from services.chassis.kernel.records import Partition, Record, RecordId, event_in, logged, named, record_id
from services.chassis.kernel.transaction.commands import write_back
from services.chassis.kernel.transaction.inbox import entering
from services.chassis.kernel.transaction.loading import Locked, lock_rows
from services.chassis.kernel.transaction.unit_of_work import Incoming, UnitOfWork
from services.chassis.process.transient import described

Records = Mapping[Partition, Sequence[Record]]
Decoded = Sequence[tuple[Record, Event]]
NONE_FAILED: Mapping[RecordId, Fault] = {}


class RecordFailure(Exception):
    """Handling of one record failed for a reason that is not the surroundings."""

    def __init__(self, record: Record, error: Exception) -> None:
        super().__init__(f"{named(record_id(record))}: {described(error)}")
        self.record, self.error = record, error


@dataclass(frozen=True)
class Decider:
    """Who applies records: a service's domain and its database."""

    engine: AsyncEngine
    domain: Domain
    effects: Effects | None = None
    limit: DeadLetterLimit | None = None
    """How much of a partition may fail; None for any."""


@dataclass(frozen=True)
class Poll:
    """Records that one transaction is to apply."""

    records: Records
    starts: Mapping[Partition, int]
    """Per partition the offset from which the consumer has read without a gap up to the first record."""
    failed: Mapping[RecordId, Fault] = field(default_factory=dict)
    """Those that become dead letters instead."""


@dataclass(frozen=True)
class Applied:
    """What one transaction did."""

    positions: Mapping[Partition, int] = field(default_factory=dict)
    """Next offset per partition, as committed."""
    behind: Mapping[Partition, int] = field(default_factory=dict)
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


async def apply_batch(decider: Decider, poll: Poll) -> Applied:
    """Apply a poll in one transaction; a partition whose position lies below its start is left alone and reported as behind.

    Raises RecordFailure for a record whose handling fails or that is one too many that cannot be read, LimitReached where a dead
    letter is one too many, and the database's own errors.
    """
    domain = decider.domain
    async with decider.engine.begin() as connection:
        accepted = await accept(connection, poll)
        opening = open_all(accepted.records, domain, poll.failed)
        await require_within_limit(connection, decider.limit, poll, opening)
        division = await keep_apart(connection, domain, opening, accepted, poll.failed)
        locked, repeated = await lock(connection, domain, division.kept)
        unit = UnitOfWork(domain, locked.rows, locked.now, new_id)
        seen = fold(unit, division.kept, repeated)
        await write_back(connection, unit, decider.effects, seen, accepted.positions)
        await keep_letters(connection, accepted, opening, division, poll.failed)
    return Applied(
        positions=accepted.positions,
        behind=accepted.behind,
        applied=len(division.kept) - unit.skipped,
        skipped=accepted.known + division.given_up + unit.skipped,
        unhandled=opening.unhandled,
        dead=len(opening.unreadable) + sum(row["state"] == "failed" for row in division.rows),
        parked=sum(row["state"] == "parked" for row in division.rows),
        letters=_said(division, opening),
        emitted=tuple(unit.emitted),
    )


# accept: what follows the positions, which are ours until the transaction ends


@dataclass
class Accepted:
    """Records that continue what was applied."""

    records: list[Record] = field(default_factory=list)
    positions: dict[Partition, int] = field(default_factory=dict)
    """Where each of their partitions stands behind them."""
    behind: dict[Partition, int] = field(default_factory=dict)
    flagged: list[Partition] = field(default_factory=list)
    """Partitions of which records are withheld."""
    known: int = 0
    """Records that were applied before."""


async def accept(connection: AsyncConnection, poll: Poll) -> Accepted:
    """Lock the positions, and take what lies at or behind them."""
    locked = await store.lock_positions(connection, sorted(poll.records))
    accepted = Accepted()
    for partition in sorted(poll.records):
        position, withheld = locked[partition]
        if position < poll.starts[partition]:
            accepted.behind[partition] = position
            continue
        fresh = [record for record in poll.records[partition] if record.offset >= position]
        accepted.known += len(poll.records[partition]) - len(fresh)
        accepted.positions[partition] = fresh[-1].offset + 1 if fresh else position
        accepted.records += fresh
        if withheld:
            accepted.flagged.append(partition)
    return accepted


# open: the event in each record, or why there is none


@dataclass
class Opening:
    """What lies in records."""

    opened: list[Opened] = field(default_factory=list)
    unreadable: list[tuple[Record, Unreadable]] = field(default_factory=list)
    unhandled: int = 0
    """Events that this service does not handle."""


def open_all(records: Iterable[Record], domain: Domain, failed: Mapping[RecordId, Fault]) -> Opening:
    """Decode records. Raises RecordFailure for a fault of ours, unless the record is to be a dead letter."""
    opening = Opening()
    for record in records:
        try:
            event = event_in(record, domain.handles)
        except Unreadable as error:
            opening.unreadable.append((record, error))
        except Exception as error:
            if record_id(record) not in failed:
                raise RecordFailure(record, error) from error
            opening.opened.append((record, None))
        else:
            if isinstance(event, Unhandled):
                opening.unhandled += 1
            else:
                opening.opened.append((record, event))
    return opening


# dead letters: how many there may be, what becomes one, and how they are kept


async def require_within_limit(
    connection: AsyncConnection, limit: DeadLetterLimit | None, poll: Poll, opening: Opening
) -> None:
    """Raises RecordFailure for an unreadable record that is one too many in its partition, LimitReached for a failed one."""
    if limit is None:
        return
    for place in poll.failed:
        if found := await limits.look(connection, limit, place[:2], [place[2]]):
            raise found[1]
    for partition in sorted({record_id(record)[:2] for record, _ in opening.unreadable}):
        here = {record.offset: record for record, _ in opening.unreadable if record_id(record)[:2] == partition}
        if found := await limits.look(connection, limit, partition, sorted(here), unreadable=True):
            raise RecordFailure(here[found[0]], found[1])


async def keep_apart(
    connection: AsyncConnection, domain: Domain, opening: Opening, accepted: Accepted, failed: Mapping[RecordId, Fault]
) -> Division:
    """Which records are folded, and which become dead letters: the failed ones and those behind them."""
    if not failed and not accepted.flagged:
        return Division(kept=[(record, event) for record, event in opening.opened if event is not None])
    blocked: dict[Partition, dict[str, int]] = {}
    discarded: set[RecordId] = set()
    for partition in accepted.flagged:
        here = [(record, event) for record, event in opening.opened if record_id(record)[:2] == partition]
        wanted = [name for record, event in here for name in parking.waits_for(domain, record, event)]
        blocked[partition] = await repository.blocking(connection, partition, wanted)
        if here:
            discarded |= await repository.discarded(connection, partition, here[0][0].offset)
    return parking.divide(domain, opening.opened, failed, blocked, frozenset(discarded))


async def keep_letters(
    connection: AsyncConnection, accepted: Accepted, opening: Opening, division: Division, failed: Mapping[RecordId, Fault]
) -> None:
    """Keep what is not folded as dead letters, wake the relay for their copies, and note which partitions have any."""
    unreadable = [repository.row_of(record, "unreadable", Fault(str(error))) for record, error in opening.unreadable]
    if letters := [*division.rows, *unreadable]:
        await repository.insert(connection, letters)
    if unreadable or failed:
        await connection.execute(store.NOTIFY, {"channel": store.OUTBOX_CHANNEL, "payload": ""})
    touched = {*accepted.flagged, *(place[:2] for place in failed)}
    for partition in sorted(touched & accepted.positions.keys()):  # only under its position's lock
        await repository.flag(connection, partition)


def _said(division: Division, opening: Opening) -> tuple[str, ...]:
    """Place and error of each dead letter."""
    kept = [f"{row['topic']}:{row['partition']}:{row['offset']}: {row['error']}" for row in division.rows]
    return (*kept, *(f"{named(record_id(record))}: {error}" for record, error in opening.unreadable))


# lock: the rows of all that is touched, and the inbox


async def lock(connection: AsyncConnection, domain: Domain, decoded: Decoded) -> tuple[Locked, Set[RecordId]]:
    """Lock the rows that events touch, under the locks of their positions; also the places of producers' duplicates among them."""
    inbox = entering(domain, decoded)
    locked = await lock_rows(connection, domain, _touched(domain, decoded), inbox.next)
    inbox.learn(locked.counts)
    return locked, await inbox.enter(connection)


def _touched(domain: Domain, decoded: Decoded) -> set[Ref]:
    refs: set[Ref] = set()
    for record, event in decoded:
        try:
            refs.update(domain.touches(event))
        except Exception as error:
            raise RecordFailure(record, error) from error
    return refs


# fold and decide: in memory


def fold(unit: UnitOfWork, decoded: Decoded, repeated: Set[RecordId]) -> list[Event]:
    """Fold in order, and decide after each; returns every event that effects see: those folded and those that touch no aggregate."""
    seen: list[Event] = []
    for record, event in decoded:
        before = len(unit.folded)
        try:
            take_in(unit, record, event, repeated=record_id(record) in repeated)
        except Exception as error:
            raise RecordFailure(record, error) from error
        seen += unit.folded[before:]
    return seen


def take_in(unit: UnitOfWork, record: Record, event: Event, *, repeated: bool) -> None:
    """Fold one record, or pass over a producer's duplicate."""
    incoming = Incoming(event, logged(record))
    if repeated:
        unit.pass_over(incoming)
    else:
        unit.fold(incoming)
