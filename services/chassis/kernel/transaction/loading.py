"""Loads a unit of work: its records are entered in the inbox and its rows locked in one statement, see `statements.lock_rows`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from services.chassis.kernel import store
from services.chassis.kernel.aggregate import AggregateType, Domain, Ref
from services.chassis.kernel.store import InboxEntry, Sighting
from services.chassis.kernel.transaction import statements
from services.chassis.kernel.transaction.aggregate_row import AggregateRow, UnparsedState
from services.chassis.postgres.transactions import Session


class LockedRows(NamedTuple):
    """Rows that are locked until the transaction ends."""

    rows: dict[Ref, AggregateRow]
    now: datetime
    """The database's clock when the last row was locked, so that all processes of a service decide by one clock."""
    counts: dict[bytes, Sighting]
    """The record that counts for each identity of the entries: an earlier one, or the one entered."""


async def lock_rows(
    connection: Session, domain: Domain, refs: Iterable[Ref], entries: Sequence[InboxEntry] = ()
) -> LockedRows:
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
        for table, key, identity, *columns, at in await connection.execute(
            statements.lock_rows(tuple(keys), bool(entries)), values
        ):
            if identity is not None:
                counts[bytes(identity)] = Sighting(columns[0], at)
                continue
            aggregate, now = domain.aggregates[table], at
            rows[Ref(table, key)] = AggregateRow(aggregate.state()) if columns[1] is None else _row(aggregate, *columns)
        missing -= rows.keys()
        entries = ()
    return LockedRows(rows, now.astimezone(UTC), counts)


async def read_rows(connection: AsyncConnection, domain: Domain, refs: Iterable[Ref]) -> dict[Ref, AggregateRow]:
    """The rows of `refs` that exist, without a lock."""
    rows: dict[Ref, AggregateRow] = {}
    for name, keys in _by_table(refs).items():
        found = await connection.execute(statements.read_rows(name), {"keys": keys})
        rows |= {Ref(name, key): _row(domain.aggregates[name], *columns) for key, *columns in found}
    return rows


def _by_table(refs: Iterable[Ref]) -> Mapping[str, list[str]]:
    return {name: [ref.key for ref in group] for name, group in groupby(sorted(set(refs)), key=lambda ref: ref.aggregate)}


def _row(
    aggregate: AggregateType, sequence: int, state: str, created: Any, updated: Any, offsets: str, own: str | None, ids: str
) -> AggregateRow:
    return AggregateRow(
        UnparsedState(aggregate.state, state),
        sequence=sequence,
        created_at=created,
        updated_at=updated,
        offsets=json.loads(offsets),
        own_event_id=own,
        own_ids=ids,
        changed=False,
    )
