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
from services.chassis.kernel.consuming.identity.examine import PartitionStop
from services.chassis.kernel.consuming.identity.moving import go_on_at, moves
from services.chassis.kernel.deadletters import repository as letters
from services.chassis.kernel.log import LogReadStalled
from services.chassis.kernel.operations.partitions.reading import (
    ComparedPositions,
    ConsumedTopics,
    LogNow,
    compared,
    compared_positions,
    look,
    stored_positions,
)
from services.chassis.kernel.records import Partition, Record, appended_at, event_in, named
from services.chassis.kernel.transaction.writing import fill_outbox


class NotStopped(Exception):
    """The partition is not stopped: there is nothing to step over."""


class CannotStepOver(Exception):
    """The partition is stopped for a reason with another remedy; stepping over it would make it worse."""


class SteppedOver(Frozen):
    """The result of a step-over."""

    topic: str
    partition: int
    fact: str = Field(description="Type of the event that records this on `neuroweaver.discards`.")
    said: str = Field(description="What the service skips, and the offset from which it continues.")


async def step_over(
    engine: AsyncEngine, reading: ConsumedTopics, partition: Partition, reason: str, by: str
) -> SteppedOver:
    """Let the service continue after the cause that stops the partition.

    Raises NotStopped, CannotStepOver and the servers' errors.
    """
    async with engine.connect() as connection:
        before = await compared_positions(connection, reading)
    seen = _stop_of(reading, partition, before)
    record = await _record_at(reading, partition, seen, before.now)
    fact: EventData
    now = await look(reading)
    async with engine.begin() as connection:
        await store.lock_positions(connection, sorted(before.positions))
        found = compared(reading, await stored_positions(connection, reading), now)
        stop = _stop_of(reading, partition, found)
        if (stop.cause, stop.offset) != (seen.cause, seen.offset):
            raise NotStopped(f"{_name(partition)} has moved meanwhile; check again with `neuroweaver partitions list`")
        match stop.cause:
            case "removed":
                fact = _skipped(reading, partition, stop, reason, by)
                await store.move_positions(connection, {partition: fact.next_offset})
            case "record":
                if record is None:
                    raise CannotStepOver(f"{_name(partition)}: no record can be read at its position now; {stop.reason}")
                fact = _discarded(reading, record, stop, reason, by)
                await store.move_positions(connection, {partition: record.offset + 1})
                await letters.learn(connection, [fact.model_dump()])
            case _:
                fact = await _accept(connection, reading, partition, stop, found, reason, by)
        await letters.flag(connection, partition)
        await rows.delete_stops(connection, [partition])
        await fill_outbox(
            connection,
            [outside_event(reading.source, fact, correlation_id=_name(partition), subject=_name(partition))],
        )
    return SteppedOver(topic=partition[0], partition=partition[1], fact=fact.type_name(), said=summary_of(fact))


def _stop_of(reading: ConsumedTopics, partition: Partition, found: ComparedPositions) -> PartitionStop:
    """Return the partition's stop, which can be stepped over. Raises NotStopped and CannotStepOver."""
    now, stop = found.now, found.stops.get(partition)
    if stop is None:
        if partition not in found.positions and partition not in now.spans:
            known = ", ".join(sorted({_name(partition) for partition in found.positions}))
            raise NotStopped(f"{reading.service} does not read {_name(partition)}; it reads {known or 'nothing yet'}")
        raise NotStopped(
            f"{_name(partition)} has not stopped, so there is nothing to step over; see `neuroweaver partitions list`"
        )
    if stop.cause == "gap":
        raise CannotStepOver(
            f"{_name(partition)} has stopped at an own event whose predecessors this database has not seen, so the "
            "database is older than "
            f"the log: stop {reading.service}, drop its database and start it; it is restored from the log. {stop.reason}"
        )
    if stop.cause == "unknown":
        raise CannotStepOver(f"{_name(partition)}: {stop.reason}")
    if stop.cause == "gone" and partition[0] not in now.found.topics:
        raise CannotStepOver(
            f"{stop.reason}, or create it with `neuroweaver topics apply` and then accept it with this command"
        )
    return stop


async def _record_at(reading: ConsumedTopics, partition: Partition, stop: PartitionStop, now: LogNow) -> Record | None:
    """Return the record that stops the partition; None where another cause does, or where no record can be read."""
    span = now.spans.get(partition)
    if stop.cause != "record" or span is None:
        return None
    try:
        async with log.read(reading.cluster, {partition: (stop.offset, span.end)}) as chunks:
            async for chunk in chunks:
                record: Record = chunk[0]
                return record
    except LogReadStalled:
        return None
    return None


def _discarded(reading: ConsumedTopics, record: Record, stop: PartitionStop, reason: str, by: str) -> RecordDiscarded:
    event = _event_in(record)
    return RecordDiscarded(
        service=reading.service,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        appended_at=appended_at(record),
        event_type=event.type if event else None,
        event_id=event.id if event else None,
        error=stop.reason,
        reason=reason,
        discarded_by=by,
    )


def _event_in(record: Record) -> Event | None:
    try:
        event = event_in(record, EVENT_TYPES)
    except Exception:  # this may be what stops the partition; the record can be discarded without type and id
        return None
    return event if isinstance(event, Event) else None


def _skipped(reading: ConsumedTopics, partition: Partition, stop: PartitionStop, reason: str, by: str) -> RecordsSkipped:
    assert stop.next_offset is not None
    return RecordsSkipped(
        service=reading.service,
        topic=partition[0],
        partition=partition[1],
        first_offset=stop.offset,
        next_offset=stop.next_offset,
        error=stop.reason,
        reason=reason,
        skipped_by=by,
    )


async def _accept(
    connection: AsyncConnection,
    reading: ConsumedTopics,
    partition: Partition,
    stop: PartitionStop,
    found: ComparedPositions,
    reason: str,
    by: str,
) -> LogAccepted:
    now = found.now
    moved = moves(partition, stop, found.positions, now.spans)
    for partition, offset in moved.items():
        await _leave_no_letters(connection, partition, first=offset or 0 if stop.cause == "beyond the end" else 0)
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
            MovedPosition(partition=partition[1], before=found.positions[partition], now=offset)
            for partition, offset in sorted(moved.items())
        ),
        error=stop.reason,
        reason=reason,
        accepted_by=by,
    )


async def _leave_no_letters(connection: AsyncConnection, partition: Partition, first: int) -> None:
    """Delete discarded dead letters from `first` on: the accepted log has other records there. Raises CannotStepOver for open ones."""
    if waiting := await letters.open_from(connection, partition, first):
        raise CannotStepOver(
            f"{waiting} dead letters of {_name(partition)} are records of the previous log; retry or discard them first, "
            "see "
            "`neuroweaver dlq list`"
        )
    await letters.delete_discarded_from(connection, partition, first)


def summary_of(fact: EventData) -> str:
    """Return a sentence about the recorded event for the operator."""
    match fact:
        case RecordDiscarded():
            return f"{named((fact.topic, fact.partition, fact.offset))} is discarded; the partition continues after it"
        case RecordsSkipped():
            return (
                f"{fact.topic}:{fact.partition}: offsets {fact.first_offset} to {fact.next_offset - 1} are lost; the "
                f"partition continues at offset {fact.next_offset}"
            )
        case LogAccepted():
            places = ", ".join(f"{one.partition}: {'gone' if one.now is None else one.now}" for one in fact.partitions)
            return f"{fact.topic} with topic id {fact.topic_id} is accepted; its partitions continue at offsets {places}"
    raise TypeError(f"{fact.type_name()} does not say where a partition continues")


def _name(partition: Partition) -> str:
    return f"{partition[0]}:{partition[1]}"
