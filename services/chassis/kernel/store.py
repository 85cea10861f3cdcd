"""The SQL of positions, inbox and outbox that every transaction shares, and the engine for it; `loading` and `writing` put it together.

Rule 4: positions are locked first, then every touched aggregate in the order of refs; absent ones are inserted first.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.event import listen
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.envelope import CONTENT_TYPE
from services.chassis.kernel.records import RecordId
from services.chassis.kernel.tables import HEADER_COLUMNS, OPERATIONAL, PROJECTION
from services.chassis.postgres.urls import STATEMENT_SECONDS, parse
from services.chassis.process.transient import ends_session

OUTBOX_CHANNEL = "outbox"
INBOX_WINDOW = timedelta(days=30)
"""A record is a producer's duplicate when it was appended at most this long behind the record that counts."""
_MARGIN = timedelta(days=1)
"""Clocks of brokers differ, so the append times of a partition may go back a little."""
MAINTENANCE_SECONDS = 600.0
"""The same for statements that copy or compare whole tables."""
_ANEW = f"EXCLUDED.appended_at > known.appended_at + interval '{INBOX_WINDOW.days} days'"

INSERT_POSITION = text(
    "INSERT INTO position (topic, partition, next_offset) VALUES (:topic, :partition, 0) ON CONFLICT DO NOTHING"
)
READ_POSITIONS = text("SELECT topic, partition, next_offset FROM position")
LOCK_POSITIONS = text(
    """SELECT topic, partition, next_offset, withheld FROM position
       WHERE (topic, partition) IN (SELECT * FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int[])))
       ORDER BY topic, partition FOR UPDATE"""
)
MOVE_POSITIONS = text(
    """UPDATE position SET next_offset = moved.next_offset
       FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int[]), CAST(:offsets AS bigint[]))
            AS moved(topic, partition, next_offset)
       WHERE position.topic = moved.topic AND position.partition = moved.partition"""
)
ENTER_INBOX = f"""INSERT INTO inbox AS known (source, id, identity, topic, partition, "offset", appended_at)
       SELECT * FROM unnest(CAST(:sources AS text[]), CAST(:ids AS text[]), CAST(:identities AS bytea[]), CAST(:topics AS text[]),
                            CAST(:partitions AS int[]), CAST(:offsets AS bigint[]), CAST(:appended_at AS timestamptz[]))
       ON CONFLICT (source, id, identity) DO UPDATE SET
           "offset" = CASE WHEN {_ANEW} THEN EXCLUDED."offset" ELSE known."offset" END,
           appended_at = CASE WHEN {_ANEW} THEN EXCLUDED.appended_at ELSE known.appended_at END
       RETURNING identity, "offset", appended_at"""
_ENTER_INBOX = text(ENTER_INBOX)
PRUNE_INBOX = text(
    f"""DELETE FROM inbox USING (SELECT topic, partition, max(appended_at) AS at FROM inbox GROUP BY topic, partition) newest
       WHERE inbox.topic = newest.topic AND inbox.partition = newest.partition
         AND inbox.appended_at < newest.at - interval '{(INBOX_WINDOW + _MARGIN).days} days'"""
)
INSERT_SWEEP = text("INSERT INTO sweep (aggregate, key) VALUES (:aggregate, :key) ON CONFLICT DO NOTHING")
NOTIFY = text("SELECT pg_notify(:channel, :payload)")


class Position(NamedTuple):
    """How far a partition is applied."""

    next_offset: int
    withheld: bool
    """Whether its dead letters must be asked before its records are applied."""


def connect(
    url: str,
    *,
    projection: str = PROJECTION,
    pool_size: int = 8,
    probe: bool = True,
    idle_in_transaction_seconds: float = 60.0,
    statement_seconds: float = STATEMENT_SECONDS,
) -> AsyncEngine:
    """An engine whose unqualified table names mean the schema `projection`, then `operational`.

    `probe` asks each connection whether it lives before it is used, which costs a round trip; whoever tries again anyway
    can do without. A transaction that says nothing for `idle_in_transaction_seconds` ends, with its locks: its process is frozen.
    A session that is of no use any more, since it may only read, its statements are gone, or one was not answered within
    `statement_seconds`, is replaced with all of its pool; it is never used again with a transaction open.
    """
    session = {
        "search_path": f"{projection},{OPERATIONAL}",
        "idle_in_transaction_session_timeout": str(round(idle_in_transaction_seconds * 1000)),
    }
    engine = parse(url).engine(
        session, statement_seconds, pool_size=pool_size, max_overflow=pool_size, pool_timeout=10, pool_pre_ping=probe
    )
    listen(engine.sync_engine, "handle_error", _replace_session)
    return engine


def _replace_session(context: ExceptionContext) -> None:
    if ends_session(context.original_exception):
        context.is_disconnect = True


async def positions(connection: AsyncConnection) -> dict[tuple[str, int], int]:
    """Every position, unlocked."""
    return {(topic, partition): offset for topic, partition, offset in await connection.execute(READ_POSITIONS)}


async def lock_positions(
    connection: AsyncConnection, partitions: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], Position]:
    """The positions of `partitions`, locked until the transaction ends: the fence."""
    rows = await connection.execute(
        LOCK_POSITIONS, {"topics": [topic for topic, _ in partitions], "partitions": [number for _, number in partitions]}
    )
    return {(topic, partition): Position(offset, withheld) for topic, partition, offset, withheld in rows}


async def move_positions(connection: AsyncConnection, moved: Mapping[tuple[str, int], int]) -> None:
    """Set each position to the next offset to apply."""
    await connection.execute(MOVE_POSITIONS, position_values(moved))


def position_values(moved: Mapping[tuple[str, int], int]) -> dict[str, list[Any]]:
    """What `MOVE_POSITIONS` is given."""
    topics, partitions = zip(*moved, strict=True)
    return {"topics": list(topics), "partitions": list(partitions), "offsets": list(moved.values())}


class Sighting(NamedTuple):
    """The record of a partition that counts for an event."""

    offset: int
    appended_at: datetime


class Entry(NamedTuple):
    """A row of the inbox to be."""

    source: str
    id: str
    identity: bytes
    """Digest of everything that a duplicate has in common with the record that counts, the partition included."""
    place: RecordId
    appended_at: datetime

    @property
    def sighting(self) -> Sighting:
        """The record itself."""
        return Sighting(self.place[2], self.appended_at)


async def enter_inbox(connection: AsyncConnection, entries: Sequence[Entry]) -> dict[bytes, Sighting]:
    """Enter records, one of each identity; returns which record counts for each: an earlier one, or the one entered."""
    rows = await connection.execute(_ENTER_INBOX, inbox_values(entries))
    return {bytes(name): Sighting(offset, at) for name, offset, at in rows}


def inbox_values(entries: Sequence[Entry]) -> dict[str, list[Any]]:
    """What `ENTER_INBOX` is given."""
    sources, ids, identities, places, times = zip(*entries, strict=True)
    topics, partitions, offsets = zip(*places, strict=True)
    return {
        "sources": list(sources), "ids": list(ids), "identities": list(identities), "topics": list(topics),
        "partitions": list(partitions), "offsets": list(offsets), "appended_at": list(times),
    }  # fmt: skip


_READ_OUTBOX = text(f"SELECT payload, {', '.join(HEADER_COLUMNS)} FROM outbox ORDER BY position")


async def read_outbox(connection: AsyncConnection) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
    """Value and headers of every own event that waits for the relay, in order."""
    return [(row.payload.encode(), record_headers(row)) for row in await connection.execute(_READ_OUTBOX)]


def record_headers(row: Any) -> list[tuple[str, bytes]]:
    """The headers with which a row of the outbox travels; its last columns are `HEADER_COLUMNS`."""
    headers = [
        (name, value.encode()) for name, value in zip(HEADER_COLUMNS, row[-len(HEADER_COLUMNS) :], strict=True) if value
    ]
    headers.append(CONTENT_TYPE)
    return headers
