"""Composes the SQL of a unit of work: one statement loads and locks it, one writes it, for any number of records and rows.

Rule 4: positions are locked before; then every touched aggregate in the order of refs, after absent rows are inserted. PostgreSQL
runs the branches of a UNION ALL in the order in which they are written, and takes the locks in that order.
"""

from functools import cache

from sqlalchemy import TextClause, text

from services.chassis.kernel.statements import ENTER_INBOX, MOVE_POSITIONS
from services.chassis.kernel.tables import HEADER_COLUMNS

Extra = tuple[tuple[str, str], ...]
"""An aggregate's query columns with their types."""

OUTBOX_COLUMNS = ("aggregatetype", "aggregateid", "type", "payload", *HEADER_COLUMNS)
"""Columns of the outbox without `position`, which the database generates."""
_TYPES = {
    "key": "text", "sequence": "bigint", "state": "text", "due_at": "timestamptz", "created_at": "timestamptz",
    "updated_at": "timestamptz", "offsets": "text", "own_event_id": "text", "own_ids": "text",
}  # fmt: skip
ROW_COLUMNS = tuple(_TYPES)
"""Columns of every aggregate table."""
_AS_JSON = ("state", "offsets")

_COLUMNS = "key, sequence, CAST(state AS text) AS state, created_at, updated_at, CAST(offsets AS text) AS offsets, own_event_id, own_ids"
_NAMES = "sequence, state, created_at, updated_at, offsets, own_event_id, own_ids"
_NOTHING = "CAST(NULL AS text), CAST(NULL AS timestamptz), CAST(NULL AS timestamptz), NULL, NULL, NULL"
"""Nulls for the columns that new rows and inbox rows do not have."""


@cache
def read_rows(table: str) -> TextClause:
    """Reads rows of an aggregate by their keys, without a lock."""
    return text(f"SELECT {_COLUMNS} FROM {table} WHERE key = ANY(CAST(:keys AS text[]))")


@cache
def lock_rows(tables: tuple[str, ...], inbox: bool) -> TextClause:
    """Enters records in the inbox, then for each table, in order: inserts the rows that are absent, and locks all others until the
    transaction ends. Its columns: table, key, identity, the columns of a row, and the time.

    The statement cannot see a row that another transaction inserts and commits meanwhile. From that table on it inserts and locks
    nothing, because the order of locks would be lost otherwise, and returns fewer rows than it was asked for: it is run again.
    """
    steps, results = [], []
    if inbox:
        steps.append(f"entered AS ({ENTER_INBOX.text})")
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


@cache
def write(tables: tuple[tuple[str, Extra], ...], events: bool, moved: bool, notifications: bool) -> TextClause:
    """Writes rows, fills the outbox, moves positions and notifies, each where it is asked for. Rows and positions are locked already.
    The parts do not see each other's changes, and none needs to. Listeners are woken when the transaction commits. Returns the positions in
    the outbox, and nulls."""
    steps = [f"saved_{number} AS ({_update(number, table, extra)})" for number, (table, extra) in enumerate(tables)]
    results = []
    if events:
        columns = ", ".join(OUTBOX_COLUMNS)
        filled = f"INSERT INTO outbox ({columns}) SELECT * FROM unnest({_texts(*OUTBOX_COLUMNS)}) RETURNING position"
        steps.append(f"filled AS ({filled})")
        results.append("SELECT position FROM filled")
    if moved:
        steps.append(f"moved AS ({MOVE_POSITIONS.text})")
    if notifications:
        told = "CAST(NULLIF(CAST(pg_notify(channel, payload) AS text), '') AS bigint)"
        results.append(f"SELECT {told} FROM unnest({_texts('channels', 'payloads')}) AS s(channel, payload)")
    last = " UNION ALL ".join(results) or "SELECT CAST(NULL AS bigint)"
    return text(f"WITH {', '.join(steps)} {last}" if steps else last)


def _texts(*names: str) -> str:
    return ", ".join(f"CAST(:{name} AS text[])" for name in names)


def _update(number: int, table: str, extra: Extra) -> str:
    """Updates rows of one table. Where the new state is null only the offsets change: the row only noted what it has seen."""
    types = {**_TYPES, **dict(extra)}
    given = {name: f"CAST(new.{name} AS jsonb)" if name in _AS_JSON else f"new.{name}" for name in types}
    sets = ", ".join(
        f"{name} = CASE WHEN new.state IS NULL THEN old.{name} ELSE {given[name]} END"
        for name in types
        if name not in ("key", "offsets")
    )
    arrays = ", ".join(f"CAST(:{name}_{number} AS {kind}[])" for name, kind in types.items())
    return f"""UPDATE {table} AS old SET offsets = {given["offsets"]}, {sets}
               FROM unnest({arrays}) AS new({", ".join(types)}) WHERE old.key = new.key"""
