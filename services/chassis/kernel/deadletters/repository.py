"""Reads and writes dead letters, and defines the models in which they are returned.

A dead letter is *unreadable* (it is no valid event), *failed* (its handling kept failing), *parked* (it is a later record of an
aggregate that a failed one blocks) or *discarded* (by an operator). The row is deleted when a retry succeeds.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.base import Frozen
from schemas.envelope import Event
from services.chassis.kernel.deadletters import statements
from services.chassis.kernel.records import (
    Partition,
    Record,
    RecordId,
    appended_at,
    name_kept,
    name_of_kept,
    name_shown,
)
from services.chassis.postgres.transactions import Session

LetterState = Literal["unreadable", "failed", "parked", "discarded"]
STATES: tuple[LetterState, ...] = ("unreadable", "failed", "parked", "discarded")
_SAID_CHARACTERS = 8000


class DeadLetterSummary(Frozen):
    """A record that a service has not applied although its position is past it, without the record's bytes."""

    topic: str
    partition: int
    offset: int
    state: LetterState = Field(description="unreadable, failed, parked or discarded.")
    key: str | None = Field(description="The record's key as text; of a long one the beginning.")
    value_bytes: int | None = Field(description="Length of the record's value in bytes; null: it has none.")
    event_type: str | None = Field(description="Type of the record's event; null if it could not be read.")
    event_id: str | None
    job_id: str | None = Field(description="The job that it belongs to, if known.")
    error: str = Field(description="Why it was not applied.")
    attempts: int = Field(description="How often the service tried to handle it.")
    blocked_by: int | None = Field(description="Offset, in the same partition, of the record that a parked one waits for.")
    reason: str | None = Field(description="Why it was discarded.")
    discarded_by: str | None
    appended_at: datetime = Field(description="Time of the record in the log.")
    recorded_at: datetime = Field(description="When it became a dead letter.")

    @property
    def record_id(self) -> RecordId:
        """The id of the record."""
        return self.topic, self.partition, self.offset


class DeadLetter(DeadLetterSummary):
    """A dead letter with its bytes and stack trace."""

    stack: str | None = Field(description="Stack trace of the failure.")
    value: str | None = Field(description="The record's value as text.")
    headers: tuple[tuple[str, str], ...] = Field(description="The record's headers as text.")


@dataclass(frozen=True, slots=True)
class BlockedBy:
    """What a failed or parked record blocks and waits for."""

    offset: int
    state: LetterState
    names: frozenset[str]
    key: bytes | None
    blocked_by: int | None


@dataclass(slots=True)
class Letter:
    """A stored dead letter: the record, and the names that it blocks."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    state: LetterState
    names: frozenset[str]
    event_type: str | None
    event_id: str | None
    correlation_id: str | None
    error: str
    attempts: int
    appended_at: datetime


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a record is not applied."""

    error: str
    stack: str | None = None
    attempts: int = 1


def row_of(
    record: Record,
    state: LetterState,
    fault: Fault,
    *,
    names: Iterable[str] = (),
    blocked_by: int | None = None,
    event: Event | None = None,
) -> dict[str, object]:
    """The row that stores `record`."""
    headers = [
        [name_kept(name), None if value is None else base64.b64encode(value).decode()] for name, value in record.headers
    ]
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "state": state,
        "key": record.key,
        "value": record.value,
        "headers": json.dumps(headers),
        "event_type": event.type if event else None,
        "event_id": event.id if event else None,
        "correlation_id": event.correlation_id if event else None,
        "error": _storable(fault.error),
        "stack": fault.stack and _storable(fault.stack),
        "attempts": fault.attempts,
        "names": sorted(names),
        "blocked_by": blocked_by,
        "appended_at": appended_at(record),
    }


async def insert(connection: Session, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert these rows; the positions of their partitions must be locked."""
    await connection.execute(statements.INSERT, rows)


async def blocking(connection: Session, partition: Partition, names: Iterable[str]) -> dict[str, int]:
    """Those of `names` that a failed or parked record of the partition blocks, with the offset of the first that does."""
    rows = await connection.execute(
        statements.BLOCKING, {"topic": partition[0], "partition": partition[1], "names": sorted(set(names))}
    )
    found: dict[str, int] = {}
    for *_, offset, held in rows:
        for name in held:
            found.setdefault(name, offset)
    return found


async def discarded(connection: Session, partition: Partition, first: int) -> set[RecordId]:
    """Ids of the discarded records from offset `first` on."""
    rows = await connection.execute(
        statements.DISCARDED, {"topic": partition[0], "partition": partition[1], "first": first}
    )
    return {(topic, number, offset) for topic, number, offset in rows}


async def blocked(connection: AsyncConnection, partition: Partition, after: int = -1) -> list[BlockedBy]:
    """The first failed and parked records of a partition behind offset `after`, in order, without their bytes; `statements.PAGE` at most."""
    rows = await connection.execute(
        statements.READ_BLOCKED, {"topic": partition[0], "partition": partition[1], "after": after}
    )
    return [BlockedBy(offset, state, frozenset(names), key, blocked) for offset, state, key, names, blocked in rows]


async def partitions_freed(connection: AsyncConnection) -> list[Partition]:
    """Partitions with a parked record whose blocking record is not failed or parked any more."""
    return [(topic, partition) for topic, partition in await connection.execute(statements.FREED_PARTITIONS)]


async def parked(connection: AsyncConnection, partition: Partition) -> int:
    """How many parked records a partition has."""
    return int(await connection.scalar(statements.COUNT_PARKED, {"topic": partition[0], "partition": partition[1]}) or 0)


async def record_ids(connection: AsyncConnection) -> set[RecordId]:
    """The ids of all dead letters."""
    return {(topic, partition, offset) for topic, partition, offset in await connection.execute(statements.RECORD_IDS)}


async def find_locked(connection: AsyncConnection, record_id: RecordId) -> Letter | None:
    """One dead letter, locked until the transaction ends."""
    row = (await connection.execute(statements.FIND_LOCKED, _at(record_id))).mappings().one_or_none()
    return None if row is None else _letter(row)


async def show(connection: AsyncConnection, record_id: RecordId) -> DeadLetter | None:
    """One dead letter, with its bytes as text."""
    row = (await connection.execute(statements.FIND, _at(record_id))).mappings().one_or_none()
    return None if row is None else _view(row)


async def search(
    connection: AsyncConnection, conditions: str, values: Mapping[str, object], limit: int
) -> list[DeadLetterSummary]:
    """The first dead letters that meet `conditions`, in the order of the log, without their bytes."""
    rows = await connection.execute(
        statements.search(conditions),
        {**values, "limit": limit},
    )
    return [_summary(row) for row in rows.mappings()]


async def failed_again(connection: AsyncConnection, record_id: RecordId, fault: Fault) -> None:
    """Store another failed attempt; a parked record becomes failed, blocks others itself, and is copied to the topic."""
    await connection.execute(
        statements.FAIL_AGAIN,
        {**_at(record_id), "error": _storable(fault.error), "stack": fault.stack and _storable(fault.stack)},
    )
    await connection.execute(statements.UNPUBLISH, _at(record_id))


async def wait_for(connection: AsyncConnection, partition: Partition, behind: Mapping[int, int]) -> None:
    """Set which record each parked one waits for, both by offset."""
    if behind:
        values = {"offsets": list(behind), "blocked_by": list(behind.values())}
        await connection.execute(statements.WAIT_FOR, {"topic": partition[0], "partition": partition[1], **values})


async def still_unreadable(connection: AsyncConnection, record_id: RecordId, error: str) -> None:
    """Store another failed attempt to read it."""
    await connection.execute(statements.STILL_UNREADABLE, {**_at(record_id), "error": _storable(error)})


async def remove(connection: AsyncConnection, record_id: RecordId) -> None:
    """Delete a dead letter whose record is applied now."""
    await connection.execute(statements.REMOVE, _at(record_id))


async def discard(connection: AsyncConnection, record_id: RecordId, reason: str, discarded_by: str) -> None:
    """Discard a dead letter: its record will never be applied."""
    await connection.execute(statements.DISCARD, {**_at(record_id), "reason": reason, "discarded_by": discarded_by})


async def learn(connection: AsyncConnection, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert the discards that were read from the log."""
    await connection.execute(statements.LEARN, rows)


async def open_from(connection: AsyncConnection, partition: Partition, first: int) -> int:
    """How many dead letters of a partition from offset `first` on are neither retried nor discarded."""
    values = {"topic": partition[0], "partition": partition[1], "first": first}
    return int(await connection.scalar(statements.COUNT_OPEN_FROM, values) or 0)


async def delete_discarded_from(connection: AsyncConnection, partition: Partition, first: int) -> None:
    """Delete the discarded dead letters of a partition from offset `first` on: other records have these offsets now."""
    values = {"topic": partition[0], "partition": partition[1], "first": first}
    await connection.execute(statements.DELETE_DISCARDED_FROM, values)


async def delete_from(connection: AsyncConnection, partition: Partition, first: int) -> None:
    """Delete all dead letters of a partition from offset `first` on: other records have these offsets now."""
    values = {"topic": partition[0], "partition": partition[1], "first": first}
    await connection.execute(statements.DELETE_FROM, values)


async def flag(connection: Session, partition: Partition) -> None:
    """Set on the position whether the partition's dead letters must be read before records are applied."""
    await connection.execute(statements.FLAG, {"topic": partition[0], "partition": partition[1]})


async def count(connection: AsyncConnection) -> dict[LetterState, int]:
    """The number of dead letters in each state."""
    found = dict.fromkeys(STATES, 0)
    for state, number in await connection.execute(statements.COUNT_BY_STATE):
        found[state] = number
    return found


def _at(record_id: RecordId) -> dict[str, object]:
    return dict(zip(("topic", "partition", "offset"), record_id, strict=True))


def _storable(said: str) -> str:
    """Text as PostgreSQL can store it, cut to a maximum length."""
    return said[:_SAID_CHARACTERS].replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def headers_of(encoded: str) -> tuple[tuple[str, bytes | None], ...]:
    """Decodes the headers of a stored record."""
    return tuple(
        (name_of_kept(name), None if value is None else base64.b64decode(value)) for name, value in json.loads(encoded)
    )


def _letter(row: Mapping[Any, Any]) -> Letter:
    return Letter(
        topic=row["topic"],
        partition=row["partition"],
        offset=row["offset"],
        timestamp=round(row["appended_at"].timestamp() * 1000),
        key=row["key"],
        value=row["value"],
        headers=headers_of(row["headers"]),
        state=row["state"],
        names=frozenset(row["names"]),
        event_type=row["event_type"],
        event_id=row["event_id"],
        correlation_id=row["correlation_id"],
        error=row["error"],
        attempts=row["attempts"],
        appended_at=row["appended_at"],
    )


def _summary(row: Mapping[Any, Any]) -> DeadLetterSummary:
    known = {name: row[name] for name in DeadLetterSummary.model_fields if name in row}
    return DeadLetterSummary(**{**known, "key": _text(row["key"]), "job_id": row["correlation_id"]})


def _view(row: Mapping[Any, Any]) -> DeadLetter:
    known = {name: row[name] for name in DeadLetter.model_fields if name in row}
    known["value_bytes"] = None if row["value"] is None else len(row["value"])
    known["key"], known["value"] = _text(row["key"]), _text(row["value"])
    known["headers"] = tuple((name_shown(name), _text(value) or "") for name, value in headers_of(row["headers"]))
    return DeadLetter(**known, job_id=row["correlation_id"])


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "backslashreplace")
