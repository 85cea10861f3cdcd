"""Blocks all writes of a service for a moment, so that its projection is exactly the log up to its positions plus own events.

Positions are locked first, then the aggregates' tables in the order of their names, as every unit of work locks them
(rule 4): batches wait for the positions; timers, workers and HTTP commands, which lock no position, wait for the tables.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.chassis.kernel import store
from services.chassis.kernel.records import Partition
from services.chassis.replay import statements


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
        await connection.execute(statements.SET_LOCK_TIMEOUT)
        locked = await connection.execute(statements.LOCK_ALL_POSITIONS)
        positions = {(topic, partition): offset for topic, partition, offset in locked}
        await connection.execute(statements.lock_tables(tables))
        yield Fenced(connection, positions, await store.read_outbox(connection))
