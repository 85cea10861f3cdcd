"""Reads jobs for HTTP: one statement per response; it sees committed rows and takes no locks."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import Field

from schemas.progress import StepProgressed
from services.chassis.serving.paging import Listing, Page, PageAsked
from services.chassis.serving.reads import Reads
from services.chassis.serving.web.parameters import Text
from services.orchestrator import statements
from services.orchestrator.domain.state import JobState, Status

_LISTING = Listing(statements.ITEM, statements.ROWS, statements.TIME, statements.KEY, statements.FILTERS)


class Stored(NamedTuple):
    """A job as stored in its row, not decoded."""

    job_id: str
    state: str
    sequence: int
    updated_at: datetime

    @property
    def row(self) -> "JobRow":
        """The same, read."""
        return JobRow(self.job_id, JobState.stored(self.state), self.sequence, self.updated_at)


class StoredProgress(NamedTuple):
    """A job and the latest progress of its attempts as stored in their rows, not decoded."""

    job: Stored
    at: tuple[datetime, ...]
    data: tuple[str, ...]

    @property
    def rows(self) -> "list[ProgressRow]":
        """The latest sign of life of each of the job's attempts."""
        return progress_rows(zip(self.at, self.data, strict=True))


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job, decoded from its row."""

    job_id: str
    state: JobState
    sequence: int
    """Number of the orchestrator's latest event about the job."""
    updated_at: datetime
    """Time of the latest event about the job."""

    @property
    def status(self) -> Status:
        """The job's status; every row that is found has one, since the job was requested or decided on."""
        return self.state.status or "requested"


@dataclass(frozen=True, slots=True)
class ProgressRow:
    """The latest progress of one attempt."""

    at: datetime
    data: StepProgressed


def progress_rows(rows: Iterable[tuple[datetime, str]]) -> list[ProgressRow]:
    """Decode times and data of rows."""
    return [ProgressRow(at, StepProgressed.model_validate_json(data)) for at, data in rows]


class JobsAsked(PageAsked):
    """The query of a list of jobs; a filter that is None does not filter."""

    status: Status | None = Field(default=None, description="Only jobs of this status.")
    requester: Text | None = Field(default=None, description="Only jobs of this requester.")
    model: Text | None = Field(default=None, description="Only jobs for this model.")

    @property
    def filters(self) -> dict[str, str | None]:
        """The filters that a cursor of this list is bound to."""
        return {"status": self.status, "requester": self.requester, "model": self.model}


@dataclass(frozen=True, slots=True)
class JobQueries:
    """Reads of one service's database."""

    reads: Reads

    async def stored(self, job_id: str) -> Stored | None:
        """Return the job, not decoded; None if it was neither requested nor decided on."""
        row = await self.reads.row(statements.FIND, job_id)
        return Stored(job_id, *row) if row else None

    async def find(self, job_id: str) -> JobRow | None:
        """Return the job, decoded; None as for `stored`."""
        stored = await self.stored(job_id)
        return stored.row if stored else None

    async def find_now(self, job_id: str) -> tuple[JobRow | None, datetime]:
        """Return the job, decoded, and the time of the clock that decisions about jobs use."""
        row = await self.reads.row(statements.FIND_NOW, job_id)
        assert row is not None
        now, *stored = row
        return (Stored(job_id, *stored).row if stored[0] is not None else None), now.astimezone(UTC)

    async def progress(self, job_id: str) -> StoredProgress | None:
        """Return the job and its progress; None if the job does not exist."""
        row = await self.reads.row(statements.FIND_PROGRESS, job_id)
        if row is None:
            return None
        *stored, at, data = row
        return StoredProgress(Stored(job_id, *stored), tuple(at), tuple(data))

    async def page(self, asked: JobsAsked) -> Page:
        """Return one page of jobs after the cursor. Raises a 422 Problem for a cursor of another list."""
        return await _LISTING.page(self.reads, asked.filters, asked.limit, asked.cursor)
