"""Reports the status of a projection: rows, positions in the log, results of replays, and old versions that still exist."""

from datetime import datetime

from pydantic import Field

from schemas.base import Frozen
from services.chassis.kernel import store
from services.chassis.replay import runs, shadow, statements
from services.chassis.replay.checks import spans_and_stops
from services.chassis.replay.projection import Projection
from services.chassis.replay.rebuild import engine_of, of_topics
from services.chassis.replay.runs import ReplayRun


class PartitionStatus(Frozen):
    """The status of one partition of the projection's topics."""

    topic: str
    partition: int
    next_offset: int = Field(description="First offset that is not applied.")
    end_offset: int | None = Field(description="First offset that is not written; null: the partition does not exist.")
    complete_from: int | None = Field(
        description="First offset that the log still has; null: the partition does not exist."
    )
    stands: str | None = Field(description="Why the service has stopped reading it; null if it reads on.")


class ProjectionStatus(Frozen):
    """The status of one service's projection."""

    service: str
    tables: dict[str, int] = Field(description="Number of rows by table.")
    updated_at: datetime | None = Field(description="Time of the newest event of any row.")
    partitions: tuple[PartitionStatus, ...]
    runs: tuple[ReplayRun, ...] = Field(description="The newest verifies and rebuilds, newest first.")
    old_versions: tuple[str, ...] = Field(description="Schemas that rebuilds left; `projections drop` removes them.")

    @property
    def lag(self) -> int:
        """Records that are not applied yet."""
        return sum(max(0, (found.end_offset or 0) - found.next_offset) for found in self.partitions)


async def status(projection: Projection) -> ProjectionStatus:
    """Read the status from the database and the log, without changing them. Raises the servers' errors."""
    async with engine_of(projection) as engine, engine.connect() as connection:
        spans, stops = await spans_and_stops(projection, engine)
        positions = of_topics(projection, await store.positions(connection))
        tables, newest = {}, []
        for name in sorted(projection.domain.aggregates):
            row = (await connection.execute(statements.measure_table(name))).one()
            tables[name] = row[0]
            newest += [row[1]] if row[1] else []
        return ProjectionStatus(
            service=projection.service,
            tables=tables,
            updated_at=max(newest, default=None),
            partitions=tuple(
                PartitionStatus(
                    topic=topic,
                    partition=number,
                    next_offset=positions.get((topic, number), 0),
                    end_offset=end,
                    complete_from=begin,
                    stands=why.reason if (why := stops.get((topic, number))) else None,
                )
                for topic, number in sorted(spans.keys() | positions.keys())
                for begin, end in [spans.get((topic, number), (None, None))]
            ),
            runs=tuple(await runs.last_runs(connection)),
            old_versions=tuple(await shadow.old_versions(connection)),
        )
