"""Applies one poll in one PostgreSQL transaction (docs/walk.md): accept, open, lock, fold and decide, write.

A crash at any instruction leaves all of it or nothing. The position in the database is the truth; Kafka's committed offset
is not used.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from schemas.envelope import Event, Unhandled, Unreadable
from schemas.ids import new_id
from services.chassis.kernel import store
from services.chassis.kernel.aggregate import Domain, Ref
from services.chassis.kernel.deadletters import limit as limits
from services.chassis.kernel.deadletters import parking, repository
from services.chassis.kernel.deadletters.conversion import row_of
from services.chassis.kernel.deadletters.limit import DeadLetterLimit
from services.chassis.kernel.deadletters.models import Fault
from services.chassis.kernel.deadletters.parking import Division, Opened
from services.chassis.kernel.effects import Effects
from services.chassis.kernel.records import Partition, Record, RecordId, event_in, logged, named, record_id_of
from services.chassis.kernel.statements import NOTIFY
from services.chassis.kernel.transaction.commands import write_back
from services.chassis.kernel.transaction.folding import Incoming
from services.chassis.kernel.transaction.handover import Handover
from services.chassis.kernel.transaction.inbox import entering
from services.chassis.kernel.transaction.loading import lock_rows
from services.chassis.kernel.transaction.own_events import OwnEvents
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.chassis.postgres.transactions import Session, Transactional
from services.chassis.process.transient import described

Records = Mapping[Partition, Sequence[Record]]
Decoded = Sequence[tuple[Record, Event]]


class RecordFailure(Exception):
    """Handling one record failed with an error that is not transient."""

    def __init__(self, record: Record, error: Exception) -> None:
        super().__init__(f"{named(record_id_of(record))}: {described(error)}")
        self.record, self.error = record, error


@dataclass(frozen=True)
class Decider:
    """What applies records: a service's domain, its effects and its database."""

    database: Transactional
    domain: Domain
    effects: Effects | None = None
    limit: DeadLetterLimit | None = None
    """How many records of a partition may become dead letters; None for any number."""
    own: OwnEvents = field(default_factory=OwnEvents)
    """Own events that may come back; lasts as long as the process."""
    handover: Handover = field(default_factory=Handover)
    """Where the relay of this process takes own events from."""


@dataclass(frozen=True)
class Poll:
    """Records to apply in one transaction."""

    records: Records
    starts: Mapping[Partition, int]
    """Per partition the offset from which the consumer has read without a gap up to the first record."""
    failed: Mapping[RecordId, Fault] = field(default_factory=dict)
    """Records that become dead letters instead."""


@dataclass(frozen=True)
class Applied:
    """What one transaction did."""

    positions: Mapping[Partition, int] = field(default_factory=dict)
    """Next offset per partition, as committed."""
    behind: Mapping[Partition, int] = field(default_factory=dict)
    """Partitions whose records start above their position, with that position: the consumer has to seek back."""
    applied: int = 0
    skipped: int = 0
    unhandled: int = 0
    dead: int = 0
    """Records that could not be read, or whose handling failed."""
    parked: int = 0
    letters: tuple[str, ...] = ()
    """Record id and error of each record that became a dead letter."""
    emitted: tuple[Event, ...] = ()


async def apply_batch(decider: Decider, poll: Poll) -> Applied:
    """Apply a poll in one transaction; a partition whose position lies below its start is skipped and reported as behind.

    Raises RecordFailure for a record whose handling fails or whose unreadability exceeds the limit, LimitReached where a dead
    letter exceeds the limit, and the database's errors.
    """
    domain = decider.domain
    async with decider.database.begin() as connection:
        accepted = await accept(connection, poll)
        opening = open_all(accepted.records, domain, poll.failed, decider.own)
        await require_within_limit(connection, decider.limit, poll, opening)
        division = await separate_dead_letters(connection, domain, opening, accepted, poll.failed)
        unit, repeated = await lock(connection, domain, division.kept)
        seen = fold(unit, division.kept, repeated)
        wake = not decider.handover.relays
        rows = await write_back(connection, unit, decider.effects, seen, accepted.positions, wake=wake)
        await store_dead_letters(connection, accepted, opening, division, poll.failed)
    if rows:
        decider.own.add(unit.emitted, rows)
        decider.handover.put(rows)
    return Applied(
        positions=accepted.positions,
        behind=accepted.behind,
        applied=len(division.kept) - unit.skipped,
        skipped=accepted.known + division.discarded + unit.skipped,
        unhandled=opening.unhandled,
        dead=len(opening.unreadable) + sum(row["state"] == "failed" for row in division.rows),
        parked=sum(row["state"] == "parked" for row in division.rows),
        letters=_said(division, opening),
        emitted=tuple(unit.emitted),
    )


# accept: lock the positions until the transaction ends, and keep the records at or behind them


@dataclass
class AcceptedRecords:
    """Records that follow what was already applied."""

    records: list[Record] = field(default_factory=list)
    positions: dict[Partition, int] = field(default_factory=dict)
    """The next offset of each partition after these records."""
    behind: dict[Partition, int] = field(default_factory=dict)
    flagged: list[Partition] = field(default_factory=list)
    """Partitions whose dead letters must be read first, see `Position`."""
    known: int = 0
    """Records that were already applied."""


async def accept(connection: Session, poll: Poll) -> AcceptedRecords:
    """Lock the positions, and return the records at or behind them."""
    locked = await store.lock_positions(connection, sorted(poll.records))
    accepted = AcceptedRecords()
    for partition in sorted(poll.records):
        position, blocked = locked[partition]
        if position < poll.starts[partition]:
            accepted.behind[partition] = position
            continue
        fresh = [record for record in poll.records[partition] if record.offset >= position]
        accepted.known += len(poll.records[partition]) - len(fresh)
        accepted.positions[partition] = fresh[-1].offset + 1 if fresh else position
        accepted.records += fresh
        if blocked:
            accepted.flagged.append(partition)
    return accepted


# open: decode the event in each record


@dataclass
class DecodedRecords:
    """Decoded records."""

    opened: list[Opened] = field(default_factory=list)
    unreadable: list[tuple[Record, Unreadable]] = field(default_factory=list)
    unhandled: int = 0
    """Events that this service does not handle."""


def open_all(records: Iterable[Record], domain: Domain, failed: Mapping[RecordId, Fault], own: OwnEvents) -> DecodedRecords:
    """Decode records. Raises RecordFailure for an unexpected error, unless the record already is to become a dead letter."""
    opening = DecodedRecords()
    for record in records:
        try:
            event = own.take(record, domain.handles) or event_in(record, domain.handles)
        except Unreadable as error:
            opening.unreadable.append((record, error))
        except Exception as error:
            if record_id_of(record) not in failed:
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
    connection: Session, limit: DeadLetterLimit | None, poll: Poll, opening: DecodedRecords
) -> None:
    """Raises RecordFailure for an unreadable record that exceeds its partition's limit, LimitReached for a failed one."""
    if limit is None:
        return
    for place in poll.failed:
        if found := await limits.look(connection, limit, place[:2], [place[2]]):
            raise found[1]
    for partition in sorted({record_id_of(record)[:2] for record, _ in opening.unreadable}):
        here = {record.offset: record for record, _ in opening.unreadable if record_id_of(record)[:2] == partition}
        if found := await limits.look(connection, limit, partition, sorted(here), unreadable=True):
            raise RecordFailure(here[found[0]], found[1])


async def separate_dead_letters(
    connection: Session,
    domain: Domain,
    opening: DecodedRecords,
    accepted: AcceptedRecords,
    failed: Mapping[RecordId, Fault],
) -> Division:
    """Divide the records into those to fold and those that become dead letters: failed ones, and parked ones behind them."""
    if not failed and not accepted.flagged:
        return Division(kept=[(record, event) for record, event in opening.opened if event is not None])
    blocked: dict[Partition, dict[str, int]] = {}
    discarded: set[RecordId] = set()
    for partition in accepted.flagged:
        here = [(record, event) for record, event in opening.opened if record_id_of(record)[:2] == partition]
        wanted = [name for record, event in here for name in parking.waits_for(domain, record, event)]
        blocked[partition] = await repository.blocking(connection, partition, wanted)
        if here:
            discarded |= await repository.discarded(connection, partition, here[0][0].offset)
    return parking.divide(domain, opening.opened, failed, blocked, frozenset(discarded))


async def store_dead_letters(
    connection: Session,
    accepted: AcceptedRecords,
    opening: DecodedRecords,
    division: Division,
    failed: Mapping[RecordId, Fault],
) -> None:
    """Store the dead letters, wake the relay to copy them, and flag the partitions that have blocked records."""
    unreadable = [row_of(record, "unreadable", Fault(str(error))) for record, error in opening.unreadable]
    if letters := [*division.rows, *unreadable]:
        await repository.insert(connection, letters)
    if unreadable or failed:
        await connection.execute(NOTIFY, {"channel": store.OUTBOX_CHANNEL, "payload": ""})
    touched = {*accepted.flagged, *(place[:2] for place in failed)}
    for partition in sorted(touched & accepted.positions.keys()):  # only under its position's lock
        await repository.flag(connection, partition)


def _said(division: Division, opening: DecodedRecords) -> tuple[str, ...]:
    """Record id and error of each dead letter."""
    kept = [f"{row['topic']}:{row['partition']}:{row['offset']}: {row['error']}" for row in division.rows]
    return (*kept, *(f"{named(record_id_of(record))}: {error}" for record, error in opening.unreadable))


# lock: the rows of all touched aggregates, and the inbox


async def lock(connection: Session, domain: Domain, decoded: Decoded) -> tuple[UnitOfWork, Set[RecordId]]:
    """Begin a unit of work on the locked rows that events touch; also returns the ids of records that are duplicates.

    The positions must be locked.
    """
    inbox = entering(domain, decoded)
    locked = await lock_rows(connection, domain, _touched(domain, decoded), inbox.next)
    inbox.learn(locked.counts)
    return UnitOfWork(domain, locked.rows, locked.now, new_id), await inbox.enter(connection)


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
    """Fold records in order and decide after each; returns the events for effects: the folded ones and those that touch no aggregate."""
    seen: list[Event] = []
    for record, event in decoded:
        before = len(unit.folded)
        try:
            fold_record(unit, record, event, repeated=record_id_of(record) in repeated)
        except Exception as error:
            raise RecordFailure(record, error) from error
        seen += unit.folded[before:]
    return seen


def fold_record(unit: UnitOfWork, record: Record, event: Event, *, repeated: bool) -> None:
    """Fold one record, or skip a producer's duplicate."""
    incoming = Incoming(event, logged(record))
    if repeated:
        unit.pass_over(incoming)
    else:
        unit.fold(incoming)
