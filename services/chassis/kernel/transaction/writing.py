"""Writes the result of a unit of work in one statement: rows, own events for the relay, positions and notifications."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.attributes import PREFIX
from schemas.bounds import HEADER_BYTES, RECORD_BYTES
from schemas.envelope import Event, wire_attributes, wire_data
from schemas.topics import TOPIC_OF, aggregate_key
from services.chassis.kernel import store
from services.chassis.kernel.aggregate import AggregateType, Domain, Ref
from services.chassis.kernel.effects import Notification
from services.chassis.kernel.records import Partition
from services.chassis.kernel.tables import HEADER_COLUMNS
from services.chassis.kernel.transaction import statements
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.handover import OutboxRow
from services.chassis.postgres.transactions import Session

_SURELY_FITS = (RECORD_BYTES - HEADER_BYTES) // 4
"""A payload of this many characters fits in a record, since a character has at most four bytes in UTF-8."""
_OFFSETS = json.JSONEncoder(sort_keys=True).encode

NONE_MOVED: Mapping[Partition, int] = {}

Values = dict[str, list[object]]


class EventTooLarge(ValueError):
    """An own event does not fit in a record. The transaction fails, because the event would block its key in the outbox for ever."""


async def write(
    connection: Session,
    domain: Domain,
    rows: Mapping[Ref, AggregateRow],
    events: Sequence[Event] = (),
    moved: Mapping[Partition, int] = NONE_MOVED,
    notifications: Sequence[Notification] = (),
    *,
    wake: bool = True,
) -> Sequence[OutboxRow]:
    """Write `rows`, queue own `events` for the relay in order, set positions to the next offset to apply, and send
    `notifications` at commit. States are written with all fields, so that a changed default does not alter them. Returns the outbox rows.
    Raises EventTooLarge.

    `wake`: wake the relay at commit, which only delays it by a poll if it is missed.
    """
    return await _execute(connection, list(row_columns(domain, rows)), events, moved, notifications, wake)


async def fill_outbox(connection: Session, events: Sequence[Event]) -> None:
    """Queue own events for the relay, in order, and wake it at commit. Raises EventTooLarge."""
    await _execute(connection, [], events, NONE_MOVED, [], True)


async def _execute(
    connection: Session,
    saved: Sequence[tuple[AggregateType, Values]],
    events: Sequence[Event],
    moved: Mapping[Partition, int],
    notifications: Sequence[Notification],
    wake: bool,
) -> Sequence[OutboxRow]:
    outbox = outbox_columns(events) if events else {}
    values: Values = {
        f"{name}_{number}": column for number, (_, columns) in enumerate(saved) for name, column in columns.items()
    }
    if events:
        values |= outbox
        if wake:
            notifications = [*notifications, (store.OUTBOX_CHANNEL, "")]
    if moved:
        values |= store.position_values(moved)
    if notifications:
        values |= {
            "channels": [channel for channel, _ in notifications],
            "payloads": [payload for _, payload in notifications],
        }
    if not values:
        return ()
    tables = tuple((aggregate.name, tuple(aggregate.columns.items())) for aggregate, _ in saved)
    found = await connection.execute(statements.write(tables, bool(events), bool(moved), bool(notifications)), values)
    positions = sorted(
        row[0] for row in found if row[0] is not None
    )  # rows get them in the order in which they are inserted
    return outbox_rows(positions, outbox) if events else ()


async def copy_rows(connection: AsyncConnection, domain: Domain, rows: Mapping[Ref, AggregateRow], schema: str) -> None:
    """Insert rows in bulk into the tables of `schema`, which must not have them yet."""
    pooled = await connection.get_raw_connection()
    assert pooled.driver_connection is not None
    for aggregate, values in row_columns(domain, rows):
        await pooled.driver_connection.copy_records_to_table(
            aggregate.name, schema_name=schema, columns=tuple(values), records=zip(*values.values(), strict=True)
        )


def row_columns(domain: Domain, rows: Mapping[Ref, AggregateRow]) -> Iterator[tuple[AggregateType, Values]]:
    """Per aggregate type the values of every column, in the order of keys. For a row in which only the offsets changed, all other
    columns are null."""
    for name, group in groupby(sorted(rows), key=lambda ref: ref.aggregate):
        aggregate = domain.aggregates[name]
        batch = [(ref.key, rows[ref]) for ref in group]
        changed = [row if row.changed else None for _, row in batch]
        values: Values = {
            "key": [key for key, _ in batch],
            "sequence": [row and row.sequence for row in changed],
            "state": [row and row.state.model_dump_json() for row in changed],
            "due_at": [row and aggregate.due(row.state) for row in changed],
            "created_at": [row and row.created_at for row in changed],
            "updated_at": [row and row.updated_at for row in changed],
            "offsets": [_OFFSETS(row.offsets) for _, row in batch],
            "own_event_id": [row and row.own_event_id for row in changed],
            "own_ids": [row and row.own_ids for row in changed],
        }
        extra = [row and aggregate.values(row.state) for row in changed]
        values |= {column: [value and value[column] for value in extra] for column in aggregate.columns}
        yield aggregate, values


def _payload(event: Event) -> str:
    payload = wire_data(event.data)
    if len(payload) > _SURELY_FITS and (size := len(payload.encode())) > RECORD_BYTES - HEADER_BYTES:
        raise EventTooLarge(
            f"{event.type} of {event.subject} has {size} bytes and a record may have {RECORD_BYTES - HEADER_BYTES}: limit "
            "its content in schemas/bounds.py"
        )
    return payload


def outbox_rows(positions: Sequence[int], outbox: Mapping[str, Sequence[Any]]) -> Sequence[OutboxRow]:
    """The rows of `outbox_columns`, in order, with their positions."""
    columns = (outbox[name] for name in ("aggregatetype", "aggregateid", "payload"))
    attributes = zip(*(outbox[name] for name in HEADER_COLUMNS), strict=True)
    return [OutboxRow(*row) for row in zip(positions, *columns, attributes, strict=True)]


def outbox_columns(events: Sequence[Event]) -> Values:
    """The columns of the outbox rows of own events, in order. Raises EventTooLarge."""
    columns: Values = {name: [] for name in statements.OUTBOX_COLUMNS}
    for event in events:
        known = wire_attributes(event)
        columns["aggregatetype"].append(TOPIC_OF[event.type].name)
        columns["aggregateid"].append(aggregate_key(event.data))
        columns["type"].append(PREFIX + event.type)
        columns["payload"].append(_payload(event))
        for name in HEADER_COLUMNS:
            columns[name].append(known.get(name))
    return columns
