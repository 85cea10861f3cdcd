"""Lets a stopped partition continue when an operator decides it; an event on the log records each decision and its reason.

The event has what a replay needs: the discarded record, the skipped range, or the accepted log. The change is one transaction
under the locks of the positions, so that the live consumer waits and then reads from the new position. The log is read before,
since a broker that does not answer would block the service, and twice, since a new leader does not know its end at once; under
the locks the positions are compared with the second result, since a partition may have continued.
"""

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.base import EventData, Frozen
from schemas.discards import LogAccepted, MovedPosition, RecordDiscarded, RecordsSkipped
from schemas.envelope import Event
from schemas.topics import EVENT_TYPES
from services.chassis.kafka.publisher import outside_event
from services.chassis.kernel import log, store
from services.chassis.kernel.consuming.identity import rows
from services.chassis.kernel.consuming.identity.examine import Standing
from services.chassis.kernel.consuming.identity.moving import go_on_at, moves
from services.chassis.kernel.deadletters import repository as letters
from services.chassis.kernel.log import LogReadStalled
from services.chassis.kernel.operations.partitions.reading import (
    ComparedPositions,
    LogNow,
    Reading,
    compared,
    compared_positions,
    look,
    stored_positions,
)
from services.chassis.kernel.records import Partition, Record, appended_at, event_in, named
from services.chassis.kernel.transaction.writing import fill_outbox


class NotStanding(Exception):
    """The partition is not stopped: there is nothing to step over."""


class CannotStepOver(Exception):
    """The partition is stopped for a reason with another remedy; stepping over it would make it worse."""


class SteppedOver(Frozen):
    """The result of a step-over."""

    topic: str
    partition: int
    fact: str = Field(description="Type of the event that says so on `neuroweaver.discards`.")
    said: str = Field(description="What the service goes on behind, and from where.")


async def step_over(engine: AsyncEngine, reading: Reading, partition: Partition, reason: str, by: str) -> SteppedOver:
    """Let the service continue behind what stops the partition. Raises NotStanding, CannotStepOver and the servers' errors."""
    async with engine.connect() as connection:
        before = await compared_positions(connection, reading)
    seen = _standing(reading, partition, before)
    record = await _record_at(reading, partition, seen, before.now)
    fact: EventData
    now = await look(reading)
    async with engine.begin() as connection:
        await store.lock_positions(connection, sorted(before.positions))
        found = compared(reading, await stored_positions(connection, reading), now)
        standing = _standing(reading, partition, found)
        if (standing.cause, standing.offset) != (seen.cause, seen.offset):
            raise NotStanding(f"{_name(partition)} has moved meanwhile; look again with `neuroweaver partitions list`")
        match standing.cause:
            case "removed":
                fact = _skipped(reading, partition, standing, reason, by)
                await store.move_positions(connection, {partition: fact.next_offset})
            case "record":
                if record is None:
                    raise CannotStepOver(f"{_name(partition)}: no record can be read there now; {standing.reason}")
                fact = _discarded(reading, record, standing, reason, by)
                await store.move_positions(connection, {partition: record.offset + 1})
                await letters.learn(connection, [fact.model_dump()])
            case _:
                fact = await _accept(connection, reading, partition, standing, found, reason, by)
        await letters.flag(connection, partition)
        await rows.go_on(connection, [partition])
        await fill_outbox(
            connection,
            [outside_event(reading.source, fact, correlation_id=_name(partition), subject=_name(partition))],
        )
    return SteppedOver(topic=partition[0], partition=partition[1], fact=fact.type_name(), said=summary_of(fact))


def _standing(reading: Reading, partition: Partition, found: ComparedPositions) -> Standing:
    """The partition's stop, which can be stepped over. Raises NotStanding and CannotStepOver."""
    now, standing = found.now, found.standing.get(partition)
    if standing is None:
        if partition not in found.positions and partition not in now.spans:
            known = ", ".join(sorted({_name(place) for place in found.positions}))
            raise NotStanding(f"{reading.service} does not read {_name(partition)}; it reads {known or 'nothing yet'}")
        raise NotStanding(
            f"{_name(partition)} does not stand, so there is nothing to step over; see `neuroweaver partitions list`"
        )
    if standing.cause == "gap":
        raise CannotStepOver(
            f"{_name(partition)} stands at an own event whose predecessors this database has not seen, so the database is older than "
            f"the log: stop {reading.service}, drop its database and start it; it is restored from the log. {standing.reason}"
        )
    if standing.cause == "unknown":
        raise CannotStepOver(f"{_name(partition)}: {standing.reason}")
    if standing.cause == "gone" and partition[0] not in now.found.topics:
        raise CannotStepOver(
            f"{standing.reason}, or make it with `neuroweaver topics apply` and then accept it with this command"
        )
    return standing


async def _record_at(reading: Reading, partition: Partition, standing: Standing, now: LogNow) -> Record | None:
    """The record that stops the partition; None where another cause does, or where no record can be read."""
    span = now.spans.get(partition)
    if standing.cause != "record" or span is None:
        return None
    try:
        async for chunk in log.read(reading.cluster, {partition: (standing.offset, span.end)}):
            record: Record = chunk[0]
            return record
    except LogReadStalled:
        return None
    return None


def _discarded(reading: Reading, record: Record, standing: Standing, reason: str, by: str) -> RecordDiscarded:
    event = _event_in(record)
    return RecordDiscarded(
        service=reading.service,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        appended_at=appended_at(record),
        event_type=event.type if event else None,
        event_id=event.id if event else None,
        error=standing.reason,
        reason=reason,
        discarded_by=by,
    )


def _event_in(record: Record) -> Event | None:
    try:
        event = event_in(record, EVENT_TYPES)
    except Exception:  # this may be what stops the partition; the record can be discarded without type and id
        return None
    return event if isinstance(event, Event) else None


def _skipped(reading: Reading, partition: Partition, standing: Standing, reason: str, by: str) -> RecordsSkipped:
    assert standing.next_offset is not None
    return RecordsSkipped(
        service=reading.service,
        topic=partition[0],
        partition=partition[1],
        first_offset=standing.offset,
        next_offset=standing.next_offset,
        error=standing.reason,
        reason=reason,
        skipped_by=by,
    )


async def _accept(
    connection: AsyncConnection,
    reading: Reading,
    partition: Partition,
    standing: Standing,
    found: ComparedPositions,
    reason: str,
    by: str,
) -> LogAccepted:
    now = found.now
    moved = moves(partition, standing, found.positions, now.spans)
    for place, offset in moved.items():
        await _leave_no_letters(connection, place, first=offset or 0 if standing.cause == "beyond the end" else 0)
    await go_on_at(connection, now.found, moved)
    topic, kept = now.found.topics[partition[0]], found.kept.get(partition[0])
    return LogAccepted(
        service=reading.service,
        topic=partition[0],
        cluster_id=now.found.cluster_id,
        topic_id=topic.topic_id,
        previous_cluster_id=kept.cluster_id if kept else None,
        previous_topic_id=kept.topic_id if kept else None,
        partitions=tuple(
            MovedPosition(partition=place[1], before=found.positions[place], now=offset)
            for place, offset in sorted(moved.items())
        ),
        error=standing.reason,
        reason=reason,
        accepted_by=by,
    )


async def _leave_no_letters(connection: AsyncConnection, partition: Partition, first: int) -> None:
    """Delete discarded dead letters from `first` on: the accepted log has other records there. Raises CannotStepOver for open ones."""
    if waiting := await letters.open_from(connection, partition, first):
        raise CannotStepOver(
            f"{waiting} dead letters of {_name(partition)} are records of the log before; retry or discard them first, see "
            "`neuroweaver dlq list`"
        )
    await letters.delete_discarded_from(connection, partition, first)


def summary_of(fact: EventData) -> str:
    """A sentence that tells an operator what the event records."""
    match fact:
        case RecordDiscarded():
            return f"{named((fact.topic, fact.partition, fact.offset))} is given up; the partition goes on behind it"
        case RecordsSkipped():
            return (
                f"{fact.topic}:{fact.partition}: offsets {fact.first_offset} to {fact.next_offset - 1} are gone; the partition goes on "
                f"at offset {fact.next_offset}"
            )
        case LogAccepted():
            places = ", ".join(f"{one.partition}: {'gone' if one.now is None else one.now}" for one in fact.partitions)
            return f"{fact.topic} with topic id {fact.topic_id} is accepted; its partitions go on at offsets {places}"
    raise TypeError(f"{fact.type_name()} does not say how a partition goes on")


def _name(partition: Partition) -> str:
    return f"{partition[0]}:{partition[1]}"
