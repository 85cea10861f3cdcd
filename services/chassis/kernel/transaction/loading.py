"""Loads a unit of work: one statement enters the inbox, inserts absent rows and locks all rows, for any number of records.

Rule 4: positions are locked before; then every touched aggregate in the order of refs, after absent rows are inserted. PostgreSQL
runs the branches of a UNION ALL in the order in which they are written, and takes the locks in that order. The statement cannot see
a row that another transaction inserts and commits meanwhile: from there on it inserts and locks nothing, and a second one goes on.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.chassis.kernel import store
from services.chassis.kernel.aggregate import AggregateType, Domain, Ref
from services.chassis.kernel.store import Entry, Sighting
from services.chassis.kernel.transaction.unit_of_work import AggregateRow, Unread

_NAMES = "sequence, state, created_at, updated_at, offsets, own_event_id, own_ids"
_NOTHING = "CAST(NULL AS text), CAST(NULL AS timestamptz), CAST(NULL AS timestamptz), NULL, NULL, NULL"
"""Nulls for the columns that new rows and inbox rows do not have."""
_COLUMNS = "key, sequence, CAST(state AS text) AS state, created_at, updated_at, CAST(offsets AS text) AS offsets, own_event_id, own_ids"


class Locked(NamedTuple):
    """Rows that are locked until the transaction ends."""

    rows: dict[Ref, AggregateRow]
    now: datetime
    """The database's clock when the last row was locked, so that all processes of a service decide by one clock."""
    counts: dict[bytes, Sighting]
    """The record that counts for each identity of the entries: an earlier one, or the one entered."""


async def lock_rows(
    connection: AsyncConnection, domain: Domain, refs: Iterable[Ref], entries: Sequence[Entry] = ()
) -> Locked:
    """The rows of `refs`, inserted where absent, locked in order until the transaction ends; before them `entries`, one of each
    identity, are entered in the inbox."""
    rows: dict[Ref, AggregateRow] = {}
    counts: dict[bytes, Sighting] = {}
    now = datetime.now(UTC)  # used only where no row is locked, so that nothing is decided
    missing = set(refs)
    while missing or entries:
        keys = _by_table(missing)
        values = {f"keys_{number}": of_table for number, of_table in enumerate(keys.values())}
        values |= store.inbox_values(entries) if entries else {}
        for table, key, identity, *columns, at in await connection.execute(_lock(tuple(keys), bool(entries)), values):
            if identity is not None:
                counts[bytes(identity)] = Sighting(columns[0], at)
                continue
            aggregate, now = domain.aggregates[table], at
            rows[Ref(table, key)] = AggregateRow(aggregate.state()) if columns[1] is None else _row(aggregate, *columns)
        missing -= rows.keys()
        entries = ()
    return Locked(rows, now.astimezone(UTC), counts)


async def read_rows(connection: AsyncConnection, domain: Domain, refs: Iterable[Ref]) -> dict[Ref, AggregateRow]:
    """The rows of `refs` that exist, without a lock."""
    rows: dict[Ref, AggregateRow] = {}
    for name, keys in _by_table(refs).items():
        found = await connection.execute(_read(name), {"keys": keys})
        rows |= {Ref(name, key): _row(domain.aggregates[name], *columns) for key, *columns in found}
    return rows


def _by_table(refs: Iterable[Ref]) -> Mapping[str, list[str]]:
    return {name: [ref.key for ref in group] for name, group in groupby(sorted(set(refs)), key=lambda ref: ref.aggregate)}


def _row(
    aggregate: AggregateType, sequence: int, state: str, created: Any, updated: Any, offsets: str, own: str | None, ids: str
) -> AggregateRow:
    return AggregateRow(
        Unread(aggregate.state, state),
        sequence=sequence,
        created_at=created,
        updated_at=updated,
        offsets=json.loads(offsets),
        own_event_id=own,
        own_ids=ids,
        changed=False,
    )


@cache
def _read(table: str) -> TextClause:
    return text(f"SELECT {_COLUMNS} FROM {table} WHERE key = ANY(CAST(:keys AS text[]))")


@cache
def _lock(tables: tuple[str, ...], inbox: bool) -> TextClause:
    """The statement for these tables. Its columns: table, key, identity, the columns of a row, and the time."""
    steps, results = [], []
    if inbox:
        steps.append(f"entered AS ({store.ENTER_INBOX})")
        results.append(f'SELECT NULL, NULL, identity, "offset", {_NOTHING}, appended_at FROM entered')
    so_far = "true"
    for number, table in enumerate(tables):
        keys = f"CAST(:keys_{number} AS text[])"
        steps.append(
            f"""absent_{number} AS (
                INSERT INTO {table} (key) SELECT key FROM unnest({keys}) AS key WHERE {so_far} ORDER BY key COLLATE "C"
                ON CONFLICT DO NOTHING RETURNING key),
            all_{number} AS MATERIALIZED (
                SELECT {so_far} AND cardinality({keys}) =
                    (SELECT count(*) FROM absent_{number}) + (SELECT count(*) FROM {table} WHERE key = ANY({keys})) AS seen),
            known_{number} AS (
                SELECT {_COLUMNS} FROM {table} WHERE key = ANY({keys}) AND (SELECT seen FROM all_{number})
                ORDER BY key COLLATE "C" FOR UPDATE)"""
        )
        so_far = f"(SELECT seen FROM all_{number})"
        results.append(f"SELECT '{table}', key, CAST(NULL AS bytea), 0, {_NOTHING}, clock_timestamp() FROM absent_{number}")
        results.append(f"SELECT '{table}', key, NULL, {_NAMES}, clock_timestamp() FROM known_{number}")
    return text(f"WITH {', '.join(steps)} {' UNION ALL '.join(results)}")
