"""Reads and writes positions, inbox and outbox, and creates the database engine."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy.engine import ExceptionContext
from sqlalchemy.event import listen
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.envelope import CONTENT_TYPE
from services.chassis.kernel import statements
from services.chassis.kernel.records import RecordId
from services.chassis.kernel.tables import HEADER_COLUMNS, OPERATIONAL, PROJECTION
from services.chassis.postgres.transactions import Session, Transactions, unanswered
from services.chassis.postgres.urls import STATEMENT_SECONDS, parse
from services.chassis.process.transient import ends_session

OUTBOX_CHANNEL = "outbox"
MAINTENANCE_SECONDS = 600.0
"""Statement time-out for statements that copy or compare whole tables."""


_PLANNED_ONCE = {
    "plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
}  # fmt: skip
"""Planning the statements of a small batch costs PostgreSQL a fifth of its time, so that each is planned once in a session. Every one
finds its rows by key: with these settings the plan is the look-up in an index, also if the table was empty when it was made."""


class Position(NamedTuple):
    """How far a partition is applied."""

    next_offset: int
    blocked: bool
    """Whether its dead letters must be read before its records are applied."""


def connect(
    url: str,
    *,
    projection: str = PROJECTION,
    pool_size: int = 8,
    probe: bool = True,
    idle_in_transaction_seconds: float = 60.0,
    statement_seconds: float = STATEMENT_SECONDS,
) -> AsyncEngine:
    """Creates an engine whose unqualified table names are looked up in the schema `projection`, then in `operational`.

    `probe` pings each connection before it is used, which costs a round trip; a caller that retries anyway does not need it.
    PostgreSQL ends a transaction that is idle for `idle_in_transaction_seconds` and frees its locks: its process is frozen.
    A session that became read-only, lost its prepared statements, or did not answer within `statement_seconds` is replaced
    together with its whole pool; it is never used again with a transaction open.
    """
    session = _settings(projection, idle_in_transaction_seconds)
    engine = parse(url).engine(
        session, statement_seconds, pool_size=pool_size, max_overflow=pool_size, pool_timeout=10, pool_pre_ping=probe
    )

    def worded(context: ExceptionContext) -> Exception | None:
        error = context.original_exception
        if ends_session(error):
            context.is_disconnect = True
        return unanswered(error, statement_seconds)

    listen(engine.sync_engine, "handle_error", worded, retval=True)
    return engine


def transactions(
    url: str, *, idle_in_transaction_seconds: float = 60.0, statement_seconds: float = STATEMENT_SECONDS
) -> Transactions:
    """Return the same for the transactions of batches, on asyncpg alone; the caller retries after any error."""
    settings = {**_settings(PROJECTION, idle_in_transaction_seconds), **_PLANNED_ONCE}
    return Transactions(url, settings, statement_seconds=statement_seconds)


def _settings(projection: str, idle_in_transaction_seconds: float) -> dict[str, str]:
    return {
        "search_path": f"{projection},{OPERATIONAL}",
        "idle_in_transaction_session_timeout": str(round(idle_in_transaction_seconds * 1000)),
    }


async def positions(connection: AsyncConnection) -> dict[tuple[str, int], int]:
    """Return every position, without a lock."""
    return {(topic, partition): offset for topic, partition, offset in await connection.execute(statements.READ_POSITIONS)}


async def lock_positions(connection: Session, partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Position]:
    """Return the positions of `partitions`, locked until the transaction ends; this lock is the fence against other
    writers."""
    rows = await connection.execute(
        statements.LOCK_POSITIONS,
        {"topics": [topic for topic, _ in partitions], "partitions": [number for _, number in partitions]},
    )
    return {(topic, partition): Position(offset, blocked) for topic, partition, offset, blocked in rows}


async def move_positions(connection: Session, moved: Mapping[tuple[str, int], int]) -> None:
    """Set each position to the next offset to apply."""
    await connection.execute(statements.MOVE_POSITIONS, position_values(moved))


def position_values(moved: Mapping[tuple[str, int], int]) -> dict[str, list[Any]]:
    """Return the parameters of `MOVE_POSITIONS`."""
    topics, partitions = zip(*moved, strict=True)
    return {"topics": list(topics), "partitions": list(partitions), "offsets": list(moved.values())}


class Sighting(NamedTuple):
    """The record of a partition that counts as the event; later ones are its duplicates."""

    offset: int
    appended_at: datetime


class InboxEntry(NamedTuple):
    """A row to insert into the inbox."""

    source: str
    id: str
    identity: bytes
    """Digest of everything that a duplicate shares with the record that counts, including the partition."""
    record_id: RecordId
    appended_at: datetime

    @property
    def sighting(self) -> Sighting:
        """Offset and time of this record."""
        return Sighting(self.record_id[2], self.appended_at)


async def enter_inbox(connection: Session, entries: Sequence[InboxEntry]) -> dict[bytes, Sighting]:
    """Insert records, one per identity; returns the record that counts for each: an earlier one, or the one inserted."""
    rows = await connection.execute(statements.ENTER_INBOX, inbox_values(entries))
    return {bytes(name): Sighting(offset, at) for name, offset, at in rows}


def inbox_values(entries: Sequence[InboxEntry]) -> dict[str, list[Any]]:
    """Return the parameters of `ENTER_INBOX`."""
    sources, ids, identities, places, times = zip(*entries, strict=True)
    topics, partitions, offsets = zip(*places, strict=True)
    return {
        "sources": list(sources), "ids": list(ids), "identities": list(identities), "topics": list(topics),
        "partitions": list(partitions), "offsets": list(offsets), "appended_at": list(times),
    }  # fmt: skip


async def read_outbox(connection: AsyncConnection) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
    """Value and headers of every own event that waits for the relay, in order."""
    return [(row.payload.encode(), record_headers(row)) for row in await connection.execute(statements.READ_OUTBOX)]


def record_headers(row: Any) -> list[tuple[str, bytes]]:
    """Return the Kafka headers of an outbox row, whose last columns are `HEADER_COLUMNS`."""
    headers = [
        (name, value.encode()) for name, value in zip(HEADER_COLUMNS, row[-len(HEADER_COLUMNS) :], strict=True) if value
    ]
    headers.append(CONTENT_TYPE)
    return headers
