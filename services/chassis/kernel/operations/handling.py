"""An operator deals with dead letters: tries one again and drains what is parked behind it in order, or gives it up.

Each record is one transaction under the lock of its partition's position, so that the live consumer and another operator
wait, and order is kept: what arrives meanwhile is parked behind what still waits.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.base import Frozen
from schemas.discards import RecordDiscarded
from schemas.envelope import Unhandled, Unreadable
from schemas.ids import new_id
from services.chassis.kafka.publisher import outside_event
from services.chassis.kernel import store
from services.chassis.kernel.aggregate import Domain
from services.chassis.kernel.consuming.isolation import fault_of
from services.chassis.kernel.deadletters import repository
from services.chassis.kernel.deadletters.parking import key_name, waits_for
from services.chassis.kernel.deadletters.repository import DeadLetter, Letter, Waiting
from services.chassis.kernel.effects import Effects
from services.chassis.kernel.records import Partition, RecordId, event_in, named, record_id
from services.chassis.kernel.transaction.batch import fold, lock
from services.chassis.kernel.transaction.commands import write_back
from services.chassis.kernel.transaction.inbox import counted_instead
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.chassis.kernel.transaction.writing import fill_outbox
from services.chassis.process.transient import is_transient


class NoSuchLetter(Exception):
    """There is no dead letter at this place."""


class NotNow(Exception):
    """What was asked cannot be done with this dead letter as it stands."""


class Behind(NotNow):
    """An earlier record that is withheld holds up what this one touches."""


class Retried(Frozen):
    """What a retry did."""

    applied: tuple[str, ...] = Field(description="Records that are applied now, as topic:partition:offset, in order.")
    failed: DeadLetter | None = Field(description="The record whose handling failed again; null: none.")
    parked: int = Field(description="Records of the partition that still wait.")


@dataclass(frozen=True)
class DeadLetterContext:
    """What it takes to handle a service's records once more."""

    service: str
    domain: Domain
    effects: Effects | None
    database_url: str


async def retry(engine: AsyncEngine, handling: DeadLetterContext, place: RecordId) -> Retried:
    """Handle one dead letter again; when that works, what was parked behind it too, in order, up to the next that fails.

    Raises NoSuchLetter, NotNow and faults of the surroundings; a failure of the handling is part of the answer.
    """
    failed = await _try(engine, handling, place)
    return await _outcome(engine, handling, place[:2], [] if failed else [place], failed)


async def discard(
    engine: AsyncEngine, handling: DeadLetterContext, place: RecordId, reason: str, discarded_by: str
) -> Retried:
    """Give one dead letter up for ever: a fact on the log, which every replay honours. What was parked behind it is drained.

    Raises as `retry` does.
    """
    async with _locked(engine, place) as (connection, letter):
        await _give_up(connection, handling, letter, reason, discarded_by)
    return await _outcome(engine, handling, place[:2], [], None)


async def _give_up(
    connection: AsyncConnection, handling: DeadLetterContext, letter: Letter, reason: str, discarded_by: str
) -> None:
    place = record_id(letter)
    fact = RecordDiscarded(
        service=handling.service,
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
        appended_at=letter.appended_at,
        event_type=letter.event_type,
        event_id=letter.event_id,
        error=letter.error,
        reason=reason,
        discarded_by=discarded_by,
    )
    event = outside_event(
        handling.domain.source, fact, correlation_id=letter.correlation_id or named(place), subject=named(place)
    )
    await fill_outbox(connection, [event])
    await repository.give_up(connection, place, reason, discarded_by)
    await repository.flag(connection, place[:2])


async def drain_free(engine: AsyncEngine, handling: DeadLetterContext) -> None:
    """Apply parked records that nothing holds up any more: an operator's process may have ended before it had drained them.

    Raises faults of the surroundings.
    """
    async with engine.connect() as connection:
        partitions = await repository.partitions_freed(connection)
    for partition in partitions:
        await _drain(engine, handling, partition)


async def _outcome(
    engine: AsyncEngine, handling: DeadLetterContext, partition: Partition, applied: list[RecordId], failed: RecordId | None
) -> Retried:
    if failed is None:
        drained, failed = await _drain(engine, handling, partition)
        applied += drained
    async with engine.connect() as connection:
        shown = await repository.show(connection, failed) if failed else None
        parked = await repository.parked(connection, partition)
    return Retried(applied=tuple(map(named, applied)), failed=shown, parked=parked)


async def _drain(
    engine: AsyncEngine, handling: DeadLetterContext, partition: Partition
) -> tuple[list[RecordId], RecordId | None]:
    """Apply every parked record that nothing holds up, in order; the places of those applied, and of the first that failed.

    One walk through the partition is enough: what holds up a record lies before it, and what comes meanwhile lies behind.
    """
    applied: list[RecordId] = []
    failed: RecordId | None = None
    queue, after = Queue(), -1
    while True:
        async with engine.connect() as connection:
            page = await repository.withheld(connection, partition, after)
        moved: dict[int, int] = {}
        for letter in page:
            place = (*partition, letter.offset)
            behind = queue.waits_for(letter)
            if letter.state == "failed" or behind is not None:
                queue.hold(letter)
                if behind is not None and behind != letter.blocked_by:
                    moved[letter.offset] = behind
                continue
            try:
                if await _try(engine, handling, place, free=True) is None:
                    applied.append(place)
                    continue
                failed = failed or place
            except NoSuchLetter:  # somebody else was faster
                continue
            except Behind:  # it could not be read until now, so that it was not known what it touches
                pass
            except NotNow:  # somebody gave it up
                continue
            queue.hold(letter)
        async with engine.begin() as connection:
            await store.lock_positions(connection, [partition])  # what a batch withholds meanwhile is seen by `flag`
            await repository.wait_for(connection, partition, moved)
            if len(page) < repository.PAGE:
                await repository.flag(connection, partition)
                return applied, failed
        after = page[-1].offset


@dataclass
class Queue:
    """What the withheld records of a partition hold up, taken in order."""

    _holders: dict[str, int] = field(default_factory=dict)

    def waits_for(self, letter: Waiting) -> int | None:
        """The offset of the first record that a parked one waits for; None where nothing holds it up."""
        if letter.state != "parked":
            return None
        names = letter.names | key_name(letter)
        return min((self._holders[name] for name in names if name in self._holders), default=None)

    def hold(self, letter: Waiting) -> None:
        """It stays withheld: later ones of what it touches wait for it."""
        for name in letter.names:
            self._holders.setdefault(name, letter.offset)


async def _try(engine: AsyncEngine, handling: DeadLetterContext, place: RecordId, *, free: bool = False) -> RecordId | None:
    """Handle one record; returns its place when that failed. `free`: it is known that nothing before it holds it up."""
    try:
        async with _locked(engine, place) as (connection, letter):
            if not free:
                await _in_turn(connection, letter, letter.names | key_name(letter))
            later = await _apply(connection, handling, letter)
            if later is None:
                await repository.remove(connection, place)
                return None
            reason = f"the same event was sent again and counts since it was applied at offset {later}"
            await _give_up(connection, handling, letter, reason, handling.domain.source)
        raise NotNow(f"{named(place)} was given up: {reason}")
    except (NoSuchLetter, NotNow):
        raise
    except Unreadable as error:
        async with engine.begin() as connection:
            await repository.still_unreadable(connection, place, str(error))
    except Exception as error:
        if is_transient(error):
            raise
        async with engine.begin() as connection:
            await repository.failed_again(connection, place, fault_of(error, 1))
    return place


async def _apply(connection: AsyncConnection, handling: DeadLetterContext, letter: Letter) -> int | None:
    """Apply the event in it; where a later record counts for it, which no replay would find out, return the offset of that one."""
    event = event_in(letter, handling.domain.handles)
    if isinstance(event, Unhandled):
        return None
    if not (names := waits_for(handling.domain, letter, event)) <= letter.names | key_name(letter):
        await _in_turn(connection, letter, names)  # what it touches was not known when it was withheld
    later = await counted_instead(connection, handling.domain, letter, event)
    if later is None:
        locked, repeated = await lock(connection, handling.domain, [(letter, event)])
        unit = UnitOfWork(handling.domain, locked.rows, locked.now, new_id)
        seen = fold(unit, [(letter, event)], repeated)
        await write_back(connection, unit, handling.effects, seen)
    return later


async def _in_turn(connection: AsyncConnection, letter: Letter, names: frozenset[str]) -> None:
    """Raises Behind where an earlier record that is withheld holds up one of `names`."""
    place = record_id(letter)
    holding = await repository.blocking(connection, place[:2], names)
    if (behind := min(holding.values(), default=letter.offset)) < letter.offset:
        raise Behind(f"{named(place)} waits for {named((*place[:2], behind))}; retry or discard that one")


@asynccontextmanager
async def _locked(engine: AsyncEngine, place: RecordId) -> AsyncIterator[tuple[AsyncConnection, Letter]]:
    """A transaction that holds the fence of the partition, and the dead letter in it, which is still open."""
    async with engine.begin() as connection:
        await store.lock_positions(connection, [place[:2]])
        letter = await repository.find_locked(connection, place)
        if letter is None:
            raise NoSuchLetter(f"{named(place)}: there is no dead letter; see `neuroweaver dlq list`")
        if letter.state == "discarded":
            raise NotNow(f"{named(place)} was discarded, and what was discarded stays out for ever")
        yield connection, letter
