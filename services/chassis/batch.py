"""Why: one PostgreSQL transaction per batch: fence, inbox, fold, projection, outbox, effects, position (design section 4).

A crash at any instruction leaves all of it or nothing; the position that was written is the truth, whatever Kafka's
committed offset says.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.envelope import Event, Unhandled, Unreadable, decode
from schemas.ids import new_id
from schemas.topics import PROGRESS, TOPIC_OF
from services.chassis import store
from services.chassis.aggregate import Domain, Ref
from services.chassis.commands import write_back
from services.chassis.effects import Effects
from services.chassis.unit import Incoming, Unit

Partition = tuple[str, int]


class Record(Protocol):
    """What is read of a Kafka record; aiokafka's ConsumerRecord is one."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """Milliseconds since 1970."""
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


Dead = list[tuple[Record, Unreadable]]
Decoded = list[tuple[Record, Event]]


class RecordFailure(Exception):
    """Handling of one record failed for a reason that is not the surroundings: its partition stops there."""

    def __init__(self, record: Record, error: Exception) -> None:
        super().__init__(f"{record.topic}:{record.partition}:{record.offset}: {type(error).__name__}: {error}")
        self.partition: Partition = (record.topic, record.partition)
        self.offset: int = record.offset


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
    emitted: tuple[Event, ...] = ()
    last: tuple[Event, ...] = ()
    """The events that were folded, for logging."""


Records = Mapping[Partition, Sequence[Record]]


async def apply_batch(
    engine: AsyncEngine, domain: Domain, effects: Effects | None, records: Records, stream_start: Mapping[Partition, int]
) -> Applied:
    """Apply `records` in one transaction.

    `stream_start` is, per partition, the offset from which the consumer has read without a gap up to the first record
    given here; a partition whose position lies below it is left alone and reported in `behind`.
    Raises RecordFailure for a record whose handling fails, and the database's own errors.
    """
    done = Applied()
    async with engine.begin() as connection:
        locked = await store.lock_positions(connection, sorted(records))
        todo: list[Record] = []
        for partition in sorted(records):
            position = locked[partition]
            if position < stream_start[partition]:
                done.behind[partition] = position
                continue
            fresh = [record for record in records[partition] if record.offset >= position]
            done.skipped += len(records[partition]) - len(fresh)
            done.positions[partition] = fresh[-1].offset + 1 if fresh else position
            todo += fresh
        decoded, dead = _decode_all(todo, domain, done)
        incoming = await _without_duplicates(connection, domain, decoded, done)
        rows = await store.lock_rows(connection, domain, _refs(domain, incoming))
        unit = Unit(domain, rows, await store.database_now(connection), new_id)
        seen = _fold_all(unit, incoming)
        await write_back(connection, unit, effects, seen)
        if dead:
            await connection.execute(store.INSERT_DEAD_LETTER, [_dead_letter(record, error) for record, error in dead])
            await connection.execute(store.NOTIFY, {"channel": store.OUTBOX_CHANNEL, "payload": ""})
        await store.move_positions(connection, done.positions)
    done.applied = len(incoming) - unit.skipped
    done.skipped += unit.skipped
    done.dead = len(dead)
    done.emitted = tuple(unit.emitted)
    done.last = tuple(seen)
    return done


def _decode_all(records: Iterable[Record], domain: Domain, done: Applied) -> tuple[Decoded, Dead]:
    decoded: Decoded = []
    dead: Dead = []
    for record in records:
        try:
            event = decode(record.value, record.headers, domain.handles, appended_at(record))
        except Unreadable as error:
            dead.append((record, error))
        except Exception as error:
            raise RecordFailure(record, error) from error
        else:
            if isinstance(event, Unhandled):
                done.unhandled += 1
            else:
                decoded.append((record, event))
    return decoded, dead


async def _without_duplicates(
    connection: AsyncConnection, domain: Domain, decoded: Decoded, done: Applied
) -> list[tuple[Record, Event]]:
    """Own numbered events are known by their number, lossy ones not at all, every other by its source and id."""

    def exempt(event: Event) -> bool:
        return (event.source == domain.source and event.sequence is not None) or TOPIC_OF[event.type] is PROGRESS

    new = await store.enter_inbox(connection, [event for _, event in decoded if not exempt(event)])
    kept: Decoded = []
    for record, event in decoded:
        if exempt(event):
            kept.append((record, event))
        elif (event.source, event.id) in new:
            new.discard((event.source, event.id))
            kept.append((record, event))
        else:
            done.skipped += 1
    return kept


def _refs(domain: Domain, decoded: Decoded) -> set[Ref]:
    refs: set[Ref] = set()
    for record, event in decoded:
        try:
            refs.update(domain.touches(event))
        except Exception as error:
            raise RecordFailure(record, error) from error
    return refs


def _fold_all(unit: Unit, decoded: Decoded) -> list[Event]:
    """Fold in order; returns every event seen by effects: those folded and those that touch no aggregate."""
    seen: list[Event] = []
    for record, event in decoded:
        before = len(unit.folded)
        try:
            unit.fold(Incoming(event, record.topic, record.partition, record.offset))
        except Exception as error:
            raise RecordFailure(record, error) from error
        seen += unit.folded[before:]
    return seen


def appended_at(record: Record) -> datetime:
    """The record's time in the log."""
    return datetime.fromtimestamp(record.timestamp / 1000, UTC)


def _dead_letter(record: Record, error: Unreadable) -> dict[str, object]:
    headers = [[name, base64.b64encode(value or b"").decode()] for name, value in record.headers]
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "key": record.key,
        "value": record.value,
        "headers": json.dumps(headers),
        "error": str(error).replace("\x00", "\\x00"),
        "appended_at": appended_at(record),
    }
