"""Opens one locked transaction for a decision outside a batch: of a timer, a worker or an HTTP command (rules 3 and 4)."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.envelope import Event
from schemas.ids import new_id
from services.chassis.kernel.aggregate import Domain, Ref
from services.chassis.kernel.effects import Effects
from services.chassis.kernel.records import Partition
from services.chassis.kernel.transaction.handover import OutboxRow
from services.chassis.kernel.transaction.loading import lock_rows
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.chassis.kernel.transaction.writing import NONE_MOVED, write
from services.chassis.postgres.transactions import Session


@dataclass(frozen=True, slots=True)
class Command:
    """A transaction with its locked aggregates."""

    connection: AsyncConnection
    """The connection of this transaction, for operational tables."""
    unit: UnitOfWork
    """The locked states; `unit.apply` turns a decision into an own event."""

    async def lock(self, refs: Iterable[Ref]) -> None:
        """Lock further rows, which are known only now that others are locked.

        Two transactions could wait for each other if rows were locked in another order than that of their refs. So each must be a
        row that is written only together with a row that this transaction has locked and that comes before it, or a row of a new
        key that no event names yet.
        """
        if missing := set(refs) - self.unit.rows.keys():
            self.unit.rows.update((await lock_rows(self.connection, self.unit.domain, missing)).rows)


@asynccontextmanager
async def transact(
    engine: AsyncEngine, domain: Domain, effects: Effects | None, refs: Iterable[Ref]
) -> AsyncIterator[Command]:
    """Lock `refs` in order (absent rows are inserted first) and yield them; on leaving, decide what follows from the decisions made
    inside the block, and write everything.

    An exception inside the block rolls the whole transaction back.
    """
    async with engine.begin() as connection:
        locked = await lock_rows(connection, domain, refs)
        unit = UnitOfWork(domain, locked.rows, locked.now, new_id)
        yield Command(connection, unit)
        for event in tuple(unit.emitted):
            unit.settle(*domain.touches(event), cause=event)
        await write_back(connection, unit, effects, unit.folded)


async def write_back(
    connection: Session,
    unit: UnitOfWork,
    effects: Effects | None,
    seen: Sequence[Event],
    moved: Mapping[Partition, int] = NONE_MOVED,
    *,
    wake: bool = True,
) -> Sequence[OutboxRow]:
    """Ends a unit of work: runs the effects on operational tables, then writes rows, outbox and the positions `moved`. Returns the outbox
    rows of its own events. `wake`: wake the relay at commit."""
    notifications = await effects(connection, seen, unit.states) if effects is not None and seen else ()
    return await write(connection, unit.domain, unit.rows, unit.emitted, moved, notifications, wake=wake)
