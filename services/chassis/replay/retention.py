"""Removes rows and schemas of a service's database that nothing needs any more; ages use the database's clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import TextClause
from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis.kernel.statements import PRUNE_INBOX
from services.chassis.replay import shadow, statements
from services.chassis.storage.retention.policy import RetentionSettings
from services.chassis.storage.retention.run import RemovedAmount, Remover


@dataclass(frozen=True)
class Rows:
    """Removes one kind of rows."""

    kind: str
    engine: AsyncEngine
    count: TextClause
    """Returns number and bytes of the rows to remove."""
    remove: TextClause
    """Removes them; returns the bytes of each."""
    values: Mapping[str, object] = field(default_factory=dict)

    async def apply(self, *, dry: bool) -> RemovedAmount:
        """Remove or, if `dry`, count the rows, in one transaction."""
        async with self.engine.begin() as connection:
            if dry:
                number, size = (await connection.execute(self.count, self.values)).one()
                return RemovedAmount(number, int(size))
            sizes = (await connection.execute(self.remove, self.values)).scalars().all()
        return RemovedAmount(len(sizes), sum(sizes))


@dataclass(frozen=True)
class InboxRows:
    """Removes inbox rows older than the window in which duplicates are recognised; the window is a promise, not a setting."""

    engine: AsyncEngine
    kind: str = "inbox"

    async def apply(self, *, dry: bool) -> RemovedAmount:
        """Remove the rows; the window uses the log's timestamps. If `dry`, the removal is rolled back."""
        async with self.engine.connect() as connection:
            removed = await connection.execute(PRUNE_INBOX)
            await (connection.rollback() if dry else connection.commit())
        return RemovedAmount(removed.rowcount, 0)


@dataclass(frozen=True)
class OldProjections:
    """Drops projection schemas that rebuilds replaced."""

    engine: AsyncEngine
    days: float
    kind: str = "projections"

    async def apply(self, *, dry: bool) -> RemovedAmount:
        """Drop each schema in its own transaction."""
        async with self.engine.connect() as connection:
            names = await shadow.old_versions(connection)
            now = await connection.scalar(statements.NOW)
        count = size = 0
        for name in names:
            made = made_at(name)
            if made is None or (now - made).total_seconds() <= self.days * 86_400:
                continue
            async with self.engine.begin() as connection:
                size += int(await connection.scalar(statements.SCHEMA_BYTES, {"schema": name}) or 0)
                if not dry:
                    await connection.execute(statements.drop_old_version(name))
            count += 1
        return RemovedAmount(count, size)


def made_at(schema: str) -> datetime | None:
    """When a rebuild replaced this version; None for a schema with another kind of name."""
    try:
        return datetime.strptime(schema, "projection_%Y%m%d_%H%M%S_%f").replace(tzinfo=UTC)
    except ValueError:
        return None


def delete(kind: str, engine: AsyncEngine, table: str, where: str, values: Mapping[str, object]) -> Rows:
    """A remover that deletes the rows of `table` that meet `where`."""
    return Rows(kind, engine, statements.count_rows(table, where), statements.delete_rows(table, where), values)


def chassis_removers(engine: AsyncEngine, policy: RetentionSettings) -> Sequence[Remover]:
    """The removers for the tables that every service has."""
    letters = {"seconds": policy.discarded_days * 86_400}
    replays = {"seconds": policy.replays_days * 86_400, "count": policy.replays_count}
    return (
        InboxRows(engine),
        Rows("discarded", engine, statements.COUNT_DISCARDED, statements.EMPTY_DISCARDED, letters),
        delete("replays", engine, "replay", statements.OLD_RUNS, replays),
        OldProjections(engine, policy.projections_days),
    )
