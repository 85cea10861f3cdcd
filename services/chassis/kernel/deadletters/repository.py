"""Reads and writes the rows of dead letters. A row is deleted when a retry succeeds."""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from services.chassis.kernel.deadletters import statements
from services.chassis.kernel.deadletters.conversion import letter_of, storable_text, summary_of, view_of
from services.chassis.kernel.deadletters.models import (
    STATES,
    BlockedBy,
    DeadLetter,
    DeadLetterSummary,
    Fault,
    Letter,
    LetterState,
)
from services.chassis.kernel.records import Partition, RecordId
from services.chassis.postgres.transactions import Session


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
    return None if row is None else letter_of(row)


async def show(connection: AsyncConnection, record_id: RecordId) -> DeadLetter | None:
    """One dead letter, with its bytes as text."""
    row = (await connection.execute(statements.FIND, _at(record_id))).mappings().one_or_none()
    return None if row is None else view_of(row)


async def search(
    connection: AsyncConnection, conditions: str, values: Mapping[str, object], limit: int
) -> list[DeadLetterSummary]:
    """The first dead letters that meet `conditions`, in the order of the log, without their bytes."""
    rows = await connection.execute(
        statements.search(conditions),
        {**values, "limit": limit},
    )
    return [summary_of(row) for row in rows.mappings()]


async def failed_again(connection: AsyncConnection, record_id: RecordId, fault: Fault) -> None:
    """Store another failed attempt; a parked record becomes failed, blocks others itself, and is copied to the topic."""
    await connection.execute(
        statements.FAIL_AGAIN,
        {**_at(record_id), "error": storable_text(fault.error), "stack": fault.stack and storable_text(fault.stack)},
    )
    await connection.execute(statements.UNPUBLISH, _at(record_id))


async def wait_for(connection: AsyncConnection, partition: Partition, behind: Mapping[int, int]) -> None:
    """Set which record each parked one waits for, both by offset."""
    if behind:
        values = {"offsets": list(behind), "blocked_by": list(behind.values())}
        await connection.execute(statements.WAIT_FOR, {"topic": partition[0], "partition": partition[1], **values})


async def still_unreadable(connection: AsyncConnection, record_id: RecordId, error: str) -> None:
    """Store another failed attempt to read it."""
    await connection.execute(statements.STILL_UNREADABLE, {**_at(record_id), "error": storable_text(error)})


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
