"""Why: all SQL of the one-transaction batch in one place; a handful of statements whatever the number of records.

Rule 4: positions are locked first, then every touched aggregate in the order of refs; absent ones are inserted first.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import TextClause, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.event import listen
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.attributes import PREFIX
from schemas.bounds import HEADER_BYTES, RECORD_BYTES
from schemas.envelope import CONTENT_TYPE, Event, wire_attributes, wire_data
from schemas.topics import TOPIC_OF, aggregate_key
from services.chassis.aggregate import AggregateType, Domain, Ref
from services.chassis.database import parse
from services.chassis.records import Place
from services.chassis.surroundings import ends_session
from services.chassis.tables import HEADER_COLUMNS, OPERATIONAL, PROJECTION
from services.chassis.unit import Row

OUTBOX_CHANNEL = "outbox"
_SURELY_FITS = (RECORD_BYTES - HEADER_BYTES) // 4
"""Characters: one has at most four bytes."""
INBOX_WINDOW = timedelta(days=30)
"""A record is a producer's duplicate when it was appended at most this long behind the record that counts."""
_MARGIN = timedelta(days=1)
"""Clocks of brokers differ, so the append times of a partition may go back a little."""
STATEMENT_SECONDS = 30.0
"""A statement of a service that is not answered for so long has no one to answer it: the server hangs, or the way to it is cut.
Well above what a batch waits for the locks of another."""
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
INSERT_INBOX = text(
    f"""INSERT INTO inbox AS known (source, id, identity, topic, partition, "offset", appended_at)
       SELECT * FROM unnest(CAST(:sources AS text[]), CAST(:ids AS text[]), CAST(:identities AS bytea[]), CAST(:topics AS text[]),
                            CAST(:partitions AS int[]), CAST(:offsets AS bigint[]), CAST(:appended_at AS timestamptz[]))
       ON CONFLICT (source, id, identity) DO UPDATE SET
           "offset" = CASE WHEN {_ANEW} THEN EXCLUDED."offset" ELSE known."offset" END,
           appended_at = CASE WHEN {_ANEW} THEN EXCLUDED.appended_at ELSE known.appended_at END
       RETURNING identity, "offset", appended_at"""
)
PRUNE_INBOX = text(
    f"""DELETE FROM inbox USING (SELECT topic, partition, max(appended_at) AS at FROM inbox GROUP BY topic, partition) newest
       WHERE inbox.topic = newest.topic AND inbox.partition = newest.partition
         AND inbox.appended_at < newest.at - interval '{(INBOX_WINDOW + _MARGIN).days} days'"""
)
INSERT_OUTBOX = text(
    f"""WITH filled AS (
        INSERT INTO outbox (aggregatetype, aggregateid, type, payload, {", ".join(HEADER_COLUMNS)})
        SELECT * FROM unnest(CAST(:aggregatetype AS text[]), CAST(:aggregateid AS text[]), CAST(:type AS text[]),
                             CAST(:payload AS text[]), {", ".join(f"CAST(:{name} AS text[])" for name in HEADER_COLUMNS)}))
        SELECT pg_notify('{OUTBOX_CHANNEL}', '')"""
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
    await connection.execute(
        MOVE_POSITIONS,
        {
            "topics": [topic for topic, _ in moved],
            "partitions": [partition for _, partition in moved],
            "offsets": list(moved.values()),
        },
    )


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
    place: Place
    appended_at: datetime

    @property
    def sighting(self) -> Sighting:
        """The record itself."""
        return Sighting(self.place[2], self.appended_at)


async def enter_inbox(connection: AsyncConnection, entries: Sequence[Entry]) -> dict[bytes, Sighting]:
    """Enter records, one of each identity; returns which record counts for each: an earlier one, or the one entered."""
    sources, ids, identities, places, times = zip(*entries, strict=True)
    topics, partitions, offsets = zip(*places, strict=True)
    given = {"sources": sources, "ids": ids, "identities": identities, "topics": topics, "partitions": partitions}
    rows = await connection.execute(
        INSERT_INBOX, {name: list(v) for name, v in given.items()} | {"offsets": list(offsets), "appended_at": list(times)}
    )
    return {bytes(name): Sighting(offset, at) for name, offset, at in rows}


class Locked(NamedTuple):
    """Rows that are ours until the transaction ends."""

    rows: dict[Ref, Row]
    now: datetime
    """The database's clock when the last of them was locked, so that all deciders of a service share one."""


async def lock_rows(connection: AsyncConnection, domain: Domain, refs: Iterable[Ref]) -> Locked:
    """The rows of `refs`, inserted where absent, locked in order until the transaction ends."""
    rows: dict[Ref, Row] = {}
    now = datetime.now(UTC)  # where there is nothing to decide about
    for name, group in groupby(sorted(set(refs)), key=lambda ref: ref.aggregate):
        aggregate = domain.aggregates[name]
        keys = [ref.key for ref in group]
        new = set()
        for key, at in await connection.execute(_insert_absent(name), {"keys": keys}):
            new.add(key)
            now = at
            rows[Ref(name, key)] = Row(aggregate.state())
        if known := [key for key in keys if key not in new]:
            for key, *columns, at in await connection.execute(_select(name, "FOR UPDATE"), {"keys": known}):
                now = at
                rows[Ref(name, key)] = _row(aggregate, *columns)
    return Locked(rows, now.astimezone(UTC))


async def read_rows(connection: AsyncConnection, domain: Domain, refs: Iterable[Ref]) -> dict[Ref, Row]:
    """Those of `refs` that have a row, unlocked."""
    rows: dict[Ref, Row] = {}
    for name, group in groupby(sorted(set(refs)), key=lambda ref: ref.aggregate):
        found = await connection.execute(_select(name, ""), {"keys": [ref.key for ref in group]})
        rows |= {Ref(name, key): _row(domain.aggregates[name], *columns) for key, *columns, _now in found}
    return rows


def _row(
    aggregate: AggregateType, sequence: int, state: str, created: Any, updated: Any, offsets: str, own: str | None, ids: str
) -> Row:
    return Row(
        state=aggregate.state.stored(state),
        sequence=sequence,
        created_at=created,
        updated_at=updated,
        offsets=json.loads(offsets),
        own_event_id=own,
        own_ids=ids,
    )


@cache
def _insert_absent(table: str) -> TextClause:
    return text(
        f"""INSERT INTO {table} (key) SELECT key FROM unnest(CAST(:keys AS text[])) AS key ORDER BY key COLLATE "C"
            ON CONFLICT DO NOTHING RETURNING key, clock_timestamp()"""
    )


@cache
def _select(table: str, lock: str) -> TextClause:
    return text(
        f"""SELECT key, sequence, CAST(state AS text), created_at, updated_at, CAST(offsets AS text), own_event_id,
                   own_ids, clock_timestamp()
            FROM {table} WHERE key = ANY(CAST(:keys AS text[])) ORDER BY key COLLATE "C" {lock}"""
    )


async def save_rows(connection: AsyncConnection, domain: Domain, rows: Mapping[Ref, Row]) -> None:
    """Write rows back, one statement per aggregate type; states whole, so that no later default changes what they say."""
    for aggregate, values in _columns(domain, rows):
        await connection.execute(_update(aggregate), values)


async def copy_rows(connection: AsyncConnection, domain: Domain, rows: Mapping[Ref, Row], schema: str) -> None:
    """Add rows that the tables in `schema` do not have, in bulk."""
    pooled = await connection.get_raw_connection()
    assert pooled.driver_connection is not None
    for aggregate, values in _columns(domain, rows):
        await pooled.driver_connection.copy_records_to_table(
            aggregate.name, schema_name=schema, columns=tuple(values), records=zip(*values.values(), strict=True)
        )


def _columns(domain: Domain, rows: Mapping[Ref, Row]) -> Iterator[tuple[AggregateType, dict[str, list[object]]]]:
    """Per aggregate type the values of every column, in the order of keys."""
    for name, group in groupby(sorted(rows), key=lambda ref: ref.aggregate):
        aggregate = domain.aggregates[name]
        batch = [(ref.key, rows[ref]) for ref in group]
        values: dict[str, list[object]] = {
            "key": [key for key, _ in batch],
            "sequence": [row.sequence for _, row in batch],
            "state": [row.state.model_dump_json() for _, row in batch],
            "due_at": [aggregate.due(row.state) for _, row in batch],
            "created_at": [row.created_at for _, row in batch],
            "updated_at": [row.updated_at for _, row in batch],
            "offsets": [_OFFSETS(row.offsets) for _, row in batch],
            "own_event_id": [row.own_event_id for _, row in batch],
            "own_ids": [row.own_ids for _, row in batch],
        }
        extra = [aggregate.values(row.state) for _, row in batch]
        values |= {column: [value[column] for value in extra] for column in aggregate.columns}
        yield aggregate, values


_TYPES = {
    "key": "text", "sequence": "bigint", "state": "text", "due_at": "timestamptz", "created_at": "timestamptz",
    "updated_at": "timestamptz", "offsets": "text", "own_event_id": "text", "own_ids": "text",
}  # fmt: skip
_AS_JSON = ("state", "offsets")
_OFFSETS = json.JSONEncoder(sort_keys=True).encode
ROW_COLUMNS = tuple(_TYPES)
"""Columns that every aggregate's table has."""


def _update(aggregate: AggregateType) -> TextClause:
    return _update_statement(aggregate.name, tuple(aggregate.columns.items()))


@cache
def _update_statement(table: str, extra: tuple[tuple[str, str], ...]) -> TextClause:
    types = {**_TYPES, **dict(extra)}
    sets = ", ".join(
        f"{column} = CAST(new.{column} AS jsonb)" if column in _AS_JSON else f"{column} = new.{column}"
        for column in types
        if column != "key"
    )
    arrays = ", ".join(f"CAST(:{column} AS {kind}[])" for column, kind in types.items())
    return text(
        f"""UPDATE {table} AS old SET {sets}
            FROM unnest({arrays}) AS new({", ".join(types)}) WHERE old.key = new.key"""
    )


class EventTooLarge(ValueError):
    """An own event that no record can hold: nothing is decided by it, rather than held up behind it for ever."""


def _payload(event: Event) -> str:
    payload = wire_data(event.data)
    if len(payload) > _SURELY_FITS and (size := len(payload.encode())) > RECORD_BYTES - HEADER_BYTES:
        raise EventTooLarge(
            f"{event.type} of {event.subject} has {size} bytes and a record holds {RECORD_BYTES - HEADER_BYTES}: what it was made of "
            "must be bounded (schemas/bounds.py)"
        )
    return payload


async def fill_outbox(connection: AsyncConnection, events: Sequence[Event]) -> None:
    """Queue own events for the relay, in order, and wake it at commit."""
    if not events:
        return
    columns: dict[str, list[str | None]] = {name: [] for name in ("aggregatetype", "aggregateid", "type", "payload")}
    columns |= {name: [] for name in HEADER_COLUMNS}
    for event in events:
        known = wire_attributes(event)
        columns["aggregatetype"].append(TOPIC_OF[event.type].name)
        columns["aggregateid"].append(aggregate_key(event.data))
        columns["type"].append(PREFIX + event.type)
        columns["payload"].append(_payload(event))
        for name in HEADER_COLUMNS:
            columns[name].append(known.get(name))
    await connection.execute(INSERT_OUTBOX, columns)


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
