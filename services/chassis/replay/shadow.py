"""Creates, swaps and drops a shadow: a schema with the projection's table names, so that the live statements fill it unchanged.

Its own `position`, `inbox` and `dead_letter` come before the operational ones on the search path. A swap renames two
schemas. A shadow that exists when a replay starts was left by one that was killed.
"""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.chassis.kernel.tables import OPERATIONAL, PROJECTION

SHADOW = "shadow"
BOOKKEEPING = ("position", "inbox", "dead_letter")

_INDEXES = text(
    """SELECT indexname, indexdef, indisprimary FROM pg_indexes
       JOIN pg_class c ON c.relname = indexname JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = schemaname
       JOIN pg_index ON indexrelid = c.oid
       WHERE schemaname = :schema AND tablename = :table ORDER BY indexname"""
)
_PRIMARY = text(
    """SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
       WHERE contype = 'p' AND conrelid = CAST(:table AS regclass)"""
)
_OLD = text("SELECT nspname FROM pg_namespace WHERE nspname LIKE :pattern ORDER BY nspname")


async def create(connection: AsyncConnection, tables: Iterable[str]) -> None:
    """Create an empty shadow of `tables`, with the same columns, keys and index names."""
    await drop(connection)
    await connection.execute(text(f"CREATE SCHEMA {SHADOW}"))
    for source, table in [(PROJECTION, name) for name in tables] + [(OPERATIONAL, name) for name in BOOKKEEPING]:
        await connection.execute(
            text(f"CREATE TABLE {SHADOW}.{table} (LIKE {source}.{table} INCLUDING ALL EXCLUDING INDEXES)")
        )
        for name, definition in (await connection.execute(_PRIMARY, {"table": f"{source}.{table}"})).all():
            await connection.execute(text(f"ALTER TABLE {SHADOW}.{table} ADD CONSTRAINT {name} {definition}"))
        for _, statement, primary in (await connection.execute(_INDEXES, {"schema": source, "table": table})).all():
            if not primary:
                await connection.execute(text(statement.replace(f" ON {source}.", f" ON {SHADOW}.", 1)))


async def drop(connection: AsyncConnection) -> None:
    """Drop the shadow, if there is one."""
    await connection.execute(text(f"DROP SCHEMA IF EXISTS {SHADOW} CASCADE"))


async def swap(connection: AsyncConnection, tables: Iterable[str], now: datetime) -> str:
    """Replace the projection by the shadow, in the caller's transaction; returns the schema of the old version.

    Rows whose state differs from before are added to `sweep` for the ticker, since decisions may follow from the new state.
    """
    old = f"{PROJECTION}_{now:%Y%m%d_%H%M%S_%f}"
    for table in tables:
        await connection.execute(
            text(
                f"""INSERT INTO sweep (aggregate, key)
                    SELECT '{table}', new.key FROM {SHADOW}.{table} new LEFT JOIN {PROJECTION}.{table} old USING (key)
                    WHERE old.state IS DISTINCT FROM new.state ON CONFLICT DO NOTHING"""
            )
        )
    for table in BOOKKEEPING:
        await connection.execute(text(f"DROP TABLE {SHADOW}.{table}"))
    await connection.execute(text(f"ALTER SCHEMA {PROJECTION} RENAME TO {old}"))
    await connection.execute(text(f"ALTER SCHEMA {SHADOW} RENAME TO {PROJECTION}"))
    return old


async def old_versions(connection: AsyncConnection) -> list[str]:
    """Schemas of earlier projections that swaps left, oldest first."""
    rows = await connection.execute(_OLD, {"pattern": f"{PROJECTION}\\_%"})
    return [name for (name,) in rows]
