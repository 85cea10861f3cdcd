"""Polls all watched jobs with one statement that returns only rows that changed since they were last seen."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from services.chassis.serving.reads import Reads
from services.orchestrator import statements
from services.orchestrator.queries import JobRow, ProgressRow, Stored, progress_rows

POLL_ROWS = 50
"""The most jobs that are held in memory at once."""


class RowVersions(NamedTuple):
    """The versions of a job's rows that were seen, as the transactions that wrote them."""

    job: str = ""
    progress: str = ""


UNSEEN = RowVersions()


@dataclass(frozen=True, slots=True)
class JobChange:
    """A job that changed since it was seen."""

    job_id: str
    versions: RowVersions
    state: str | None
    """None if only progress changed."""
    sequence: int
    updated_at: datetime
    progress_values: tuple[tuple[datetime, str], ...]
    """Time and JSON text of each attempt's latest progress."""

    def row(self, before: JobRow | None) -> JobRow:
        """Return the job; `before` is the result of an earlier poll."""
        if self.state is None and before is not None:
            return before
        return Stored(self.job_id, self.state or "", self.sequence, self.updated_at).row

    @property
    def progress(self) -> list[ProgressRow]:
        """The latest progress of each of the job's attempts."""
        return progress_rows(self.progress_values)


@dataclass(frozen=True, slots=True)
class JobPoller:
    """Polls one service's database."""

    reads: Reads

    async def changed(self, seen: Mapping[str, RowVersions]) -> AsyncIterator[JobChange]:
        """Yield those of `seen` that changed. No session is held while one of them is handled."""
        left = dict(seen)
        while left:
            found = await self._next(left)
            for change in found:
                del left[change.job_id]
                yield change
            if len(found) < POLL_ROWS:
                return

    async def _next(self, seen: Mapping[str, RowVersions]) -> list[JobChange]:
        found = await self.reads.rows(
            statements.CHANGED,
            list(seen),
            [versions.job for versions in seen.values()],
            [versions.progress for versions in seen.values()],
            POLL_ROWS,
        )
        return [
            JobChange(
                job_id,
                RowVersions(job, progress),
                state,
                sequence,
                updated_at,
                tuple(zip(at or (), data or (), strict=True)),
            )
            for job_id, job, progress, at, data, state, sequence, updated_at in found
        ]
