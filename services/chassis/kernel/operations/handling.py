"""Retries a dead letter and drains what is parked behind it in order, or discards it, for an operator.

Each record is one transaction under the lock of its partition's position, so that the live consumer and other operators
wait, and order is kept: records that arrive meanwhile are parked behind those that still wait.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.base import Frozen
from schemas.discards import RecordDiscarded
from schemas.envelope import Unhandled, Unreadable
from services.chassis.kafka.publisher import outside_event
from services.chassis.kernel import store
from services.chassis.kernel.aggregate import Domain
from services.chassis.kernel.consuming.isolation import fault_of
from services.chassis.kernel.deadletters import repository
from services.chassis.kernel.deadletters.models import BlockedBy, DeadLetter, Letter
from services.chassis.kernel.deadletters.parking import key_name, waits_for
from services.chassis.kernel.deadletters.statements import PAGE
from services.chassis.kernel.effects import Effects
from services.chassis.kernel.records import Partition, RecordId, event_in, named, record_id_of
from services.chassis.kernel.transaction.batch import fold, lock
from services.chassis.kernel.transaction.commands import write_back
from services.chassis.kernel.transaction.inbox import counted_instead
from services.chassis.kernel.transaction.writing import fill_outbox
from services.chassis.process.transient import is_transient


class NoSuchLetter(Exception):
    """There is no dead letter with this record id."""


class NotPossibleNow(Exception):
    """The request is not possible in the present state of the dead letter."""


class BlockedByEarlierRecord(NotPossibleNow):
    """An earlier failed or parked record blocks what this one touches."""


class Retried(Frozen):
    """The outcome of a retry."""

    applied: tuple[str, ...] = Field(description="Records that were applied, as topic:partition:offset, in order.")
    failed: DeadLetter | None = Field(description="The record whose handling failed again; null: none.")
    parked: int = Field(description="Number of parked records of the partition that still wait.")


@dataclass(frozen=True)
class DeadLetterContext:
    """What is needed to handle a service's records again."""

    service: str
    domain: Domain
    effects: Effects | None
    database_url: str


async def retry(engine: AsyncEngine, context: DeadLetterContext, record_id: RecordId) -> Retried:
    """Handle one dead letter again; if that succeeds, also the records parked behind it, in order, up to the next that fails.

    Raises NoSuchLetter, NotPossibleNow and transient errors; a failure of the handling is part of the result.
    """
    failed = await _try(engine, context, record_id)
    return await _outcome(engine, context, record_id[:2], [] if failed else [record_id], failed)


async def discard(
    engine: AsyncEngine, context: DeadLetterContext, record_id: RecordId, reason: str, discarded_by: str
) -> Retried:
    """Discard one dead letter permanently, by an event in the log that every replay follows, and apply the records parked
    behind it.

    Raises as `retry` does.
    """
    async with _locked(engine, record_id) as (connection, letter):
        await _discard(connection, context, letter, reason, discarded_by)
    return await _outcome(engine, context, record_id[:2], [], None)


async def _discard(
    connection: AsyncConnection, context: DeadLetterContext, letter: Letter, reason: str, discarded_by: str
) -> None:
    record_id = record_id_of(letter)
    fact = RecordDiscarded(
        service=context.service,
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
        context.domain.source, fact, correlation_id=letter.correlation_id or named(record_id), subject=named(record_id)
    )
    await fill_outbox(connection, [event])
    await repository.discard(connection, record_id, reason, discarded_by)
    await repository.flag(connection, record_id[:2])


async def drain_free(engine: AsyncEngine, context: DeadLetterContext) -> None:
    """Apply parked records that nothing blocks any more: an operator's process may have ended before it had drained them.

    Raises transient errors.
    """
    async with engine.connect() as connection:
        partitions = await repository.partitions_freed(connection)
    for partition in partitions:
        await _drain(engine, context, partition)


async def _outcome(
    engine: AsyncEngine, context: DeadLetterContext, partition: Partition, applied: list[RecordId], failed: RecordId | None
) -> Retried:
    if failed is None:
        drained, failed = await _drain(engine, context, partition)
        applied += drained
    async with engine.connect() as connection:
        shown = await repository.show(connection, failed) if failed else None
        parked = await repository.parked(connection, partition)
    return Retried(applied=tuple(map(named, applied)), failed=shown, parked=parked)


async def _drain(
    engine: AsyncEngine, context: DeadLetterContext, partition: Partition
) -> tuple[list[RecordId], RecordId | None]:
    """Apply every parked record that nothing blocks, in order; returns the ids of those applied, and of the first that failed.

    One pass over the partition is enough: a blocking record lies before the blocked one, and new records come after both.
    """
    applied: list[RecordId] = []
    failed: RecordId | None = None
    queue, after = Queue(), -1
    while True:
        async with engine.connect() as connection:
            page = await repository.blocked(connection, partition, after)
        moved: dict[int, int] = {}
        for letter in page:
            record_id = (*partition, letter.offset)
            behind = queue.waits_for(letter)
            if letter.state == "failed" or behind is not None:
                queue.hold(letter)
                if behind is not None and behind != letter.blocked_by:
                    moved[letter.offset] = behind
                continue
            try:
                if await _try(engine, context, record_id, free=True) is None:
                    applied.append(record_id)
                    continue
                failed = failed or record_id
            except NoSuchLetter:  # another operator was faster
                continue
            except BlockedByEarlierRecord:  # it could not be decoded until now, so the aggregates it touches were unknown
                pass
            except NotPossibleNow:  # it was discarded meanwhile
                continue
            queue.hold(letter)
        async with engine.begin() as connection:
            await store.lock_positions(connection, [partition])  # so that `flag` sees what a batch parks meanwhile
            await repository.wait_for(connection, partition, moved)
            if len(page) < PAGE:
                await repository.flag(connection, partition)
                return applied, failed
        after = page[-1].offset


@dataclass
class Queue:
    """What the failed and parked records of a partition block, taken in order."""

    _holders: dict[str, int] = field(default_factory=dict)

    def waits_for(self, letter: BlockedBy) -> int | None:
        """The offset of the first record that a parked one waits for; None where nothing blocks it."""
        if letter.state != "parked":
            return None
        names = letter.names | key_name(letter)
        return min((self._holders[name] for name in names if name in self._holders), default=None)

    def hold(self, letter: BlockedBy) -> None:
        """Keep a record blocked: later records of what it touches wait for it."""
        for name in letter.names:
            self._holders.setdefault(name, letter.offset)


async def _try(
    engine: AsyncEngine, context: DeadLetterContext, record_id: RecordId, *, free: bool = False
) -> RecordId | None:
    """Handle one record; returns its id if that failed. `free`: the caller knows that no earlier record blocks it."""
    try:
        async with _locked(engine, record_id) as (connection, letter):
            if not free:
                await _in_turn(connection, letter, letter.names | key_name(letter))
            later = await _apply(connection, context, letter)
            if later is None:
                await repository.remove(connection, record_id)
                return None
            reason = f"the same event was sent again and has been applied at offset {later}"
            await _discard(connection, context, letter, reason, context.domain.source)
        raise NotPossibleNow(f"{named(record_id)} was discarded: {reason}")
    except (NoSuchLetter, NotPossibleNow):
        raise
    except Unreadable as error:
        async with engine.begin() as connection:
            await repository.still_unreadable(connection, record_id, str(error))
    except Exception as error:
        if is_transient(error):
            raise
        async with engine.begin() as connection:
            await repository.failed_again(connection, record_id, fault_of(error, 1))
    return record_id


async def _apply(connection: AsyncConnection, context: DeadLetterContext, letter: Letter) -> int | None:
    """Apply the event of a dead letter; if a later record was applied in its place, which a replay would not find, returns its offset."""
    event = event_in(letter, context.domain.handles)
    if isinstance(event, Unhandled):
        return None
    if not (names := waits_for(context.domain, letter, event)) <= letter.names | key_name(letter):
        await _in_turn(connection, letter, names)  # what it touches was unknown when it became a dead letter
    later = await counted_instead(connection, context.domain, letter, event)
    if later is None:
        unit, repeated = await lock(connection, context.domain, [(letter, event)])
        seen = fold(unit, [(letter, event)], repeated)
        await write_back(connection, unit, context.effects, seen)
    return later


async def _in_turn(connection: AsyncConnection, letter: Letter, names: frozenset[str]) -> None:
    """Raises BlockedByEarlierRecord where an earlier failed or parked record blocks one of `names`."""
    record_id = record_id_of(letter)
    holding = await repository.blocking(connection, record_id[:2], names)
    if (behind := min(holding.values(), default=letter.offset)) < letter.offset:
        raise BlockedByEarlierRecord(
            f"{named(record_id)} waits for {named((*record_id[:2], behind))}; retry or discard that one"
        )


@asynccontextmanager
async def _locked(engine: AsyncEngine, record_id: RecordId) -> AsyncIterator[tuple[AsyncConnection, Letter]]:
    """A transaction that holds the lock of the partition's position, with the dead letter, which is not discarded."""
    async with engine.begin() as connection:
        await store.lock_positions(connection, [record_id[:2]])
        letter = await repository.find_locked(connection, record_id)
        if letter is None:
            raise NoSuchLetter(f"{named(record_id)}: there is no dead letter; see `neuroweaver dlq list`")
        if letter.state == "discarded":
            raise NotPossibleNow(f"{named(record_id)} was discarded, which cannot be undone")
        yield connection, letter
