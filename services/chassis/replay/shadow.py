"""Creates, swaps and drops a shadow: a schema with the projection's table names, so that the live statements fill it unchanged.

Its own `position`, `inbox` and `dead_letter` come before the operational ones on the search path. A swap renames two
schemas. A shadow that exists when a replay starts was left by one that was killed.
"""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from services.chassis.kernel.tables import OPERATIONAL, PROJECTION
from services.chassis.replay import statements

BOOKKEEPING = ("position", "inbox", "dead_letter")


async def create(connection: AsyncConnection, tables: Iterable[str]) -> None:
    """Create an empty shadow of `tables`, with the same columns, keys and index names."""
    await drop(connection)
    await connection.execute(statements.CREATE_SHADOW)
    for source, table in [(PROJECTION, name) for name in tables] + [(OPERATIONAL, name) for name in BOOKKEEPING]:
        await connection.execute(statements.table_in_shadow(source, table))
        keys = await connection.execute(statements.PRIMARY_KEY, {"table": f"{source}.{table}"})
        for name, definition in keys.all():
            await connection.execute(statements.add_constraint(table, name, definition))
        indexes = await connection.execute(statements.INDEXES, {"schema": source, "table": table})
        for _, definition, primary in indexes.all():
            if not primary:
                await connection.execute(statements.index_in_shadow(source, definition))


async def drop(connection: AsyncConnection) -> None:
    """Drop the shadow, if there is one."""
    await connection.execute(statements.DROP_SHADOW)


async def swap(connection: AsyncConnection, tables: Iterable[str], now: datetime) -> str:
    """Replace the projection by the shadow, in the caller's transaction; returns the schema of the old version.

    Rows whose state differs from before are added to `sweep` for the ticker, since decisions may follow from the new state.
    """
    old = f"{PROJECTION}_{now:%Y%m%d_%H%M%S_%f}"
    for table in tables:
        await connection.execute(statements.sweep_changed(table))
    for table in BOOKKEEPING:
        await connection.execute(statements.drop_shadow_table(table))
    await connection.execute(statements.keep_projection_as(old))
    await connection.execute(statements.SHADOW_TO_PROJECTION)
    return old


async def old_versions(connection: AsyncConnection) -> list[str]:
    """Schemas of earlier projections that swaps left, oldest first."""
    rows = await connection.execute(statements.OLD_VERSIONS, {"pattern": f"{PROJECTION}\\_%"})
    return [name for (name,) in rows]
