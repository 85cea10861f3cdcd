"""Blocks all writes of a service for a moment, so that its projection is exactly the log up to its positions plus own events.

Positions are locked first, then the aggregates' tables in the order of their names, as every unit of work locks them
(rule 4): batches wait for the positions; timers, workers and HTTP commands, which lock no position, wait for the tables.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.chassis.kernel import store
from services.chassis.kernel.records import Partition
from services.chassis.kernel.tables import PROJECTION

_LOCK_TIMEOUT = "20s"
_POSITIONS = text("SELECT topic, partition, next_offset FROM position ORDER BY topic, partition FOR UPDATE")


@dataclass(frozen=True)
class Fenced:
    """A service whose writes are blocked."""

    connection: AsyncConnection
    """The connection whose transaction holds the fence; a swap has to use it."""
    positions: dict[Partition, int]
    waiting: list[tuple[bytes, list[tuple[str, bytes]]]]
    """Own events in the outbox: value and headers, in order."""


@asynccontextmanager
async def fence(engine: AsyncEngine, tables: Iterable[str]) -> AsyncIterator[Fenced]:
    """Block the service's writes while the block runs; commits on leaving, rolls back on an exception.

    Raises the database's error when a unit of work holds its rows for longer than the lock time-out.
    """
    async with engine.begin() as connection:
        await connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
        positions = {(topic, partition): offset for topic, partition, offset in await connection.execute(_POSITIONS)}
        names = ", ".join(f"{PROJECTION}.{table}" for table in sorted(tables))
        await connection.execute(text(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE"))
        yield Fenced(connection, positions, await store.read_outbox(connection))
