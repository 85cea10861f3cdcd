"""Why: all reads for HTTP in one place; they see committed rows and lock nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.progress import StepProgressed
from services.chassis.paging import make_cursor, moment, read_cursor
from services.orchestrator.domain.state import JobState, Status

_FIND = text("SELECT CAST(state AS text), sequence, updated_at FROM job WHERE key = :job_id")
_NOW = text("SELECT clock_timestamp()")
_PROGRESS = text("SELECT at, CAST(data AS text) FROM progress WHERE job_id = :job_id ORDER BY key")
_PAGE = """SELECT key, sequence, status, requester, pipeline, model, version, steps, steps_done, requested_at, ended_at, updated_at
       FROM job
       WHERE {conditions} ORDER BY requested_at DESC, key DESC LIMIT :limit"""
_FILTERS = {"status": "status = :status", "requester": "requester = :requester", "model": "model = :model"}
_BEHIND = "(requested_at, key) < (:before_at, :before_key)"


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as its row holds it."""

    job_id: str
    state: JobState
    sequence: int
    """Number of the orchestrator's latest event about the job."""
    updated_at: datetime
    """Time of the latest event about the job."""

    @property
    def status(self) -> Status:
        """A row that is found was requested or decided about, so it has a status."""
        return self.state.status or "requested"


@dataclass(frozen=True, slots=True)
class ProgressRow:
    """The latest sign of life of one attempt."""

    at: datetime
    data: StepProgressed


@dataclass(frozen=True, slots=True)
class Filters:
    """Which jobs a list shows; None does not filter."""

    status: Status | None = None
    requester: str | None = None
    model: str | None = None

    @property
    def query(self) -> dict[str, str | None]:
        """What a cursor of this list is bound to."""
        return {"status": self.status, "requester": self.requester, "model": self.model}


@dataclass(frozen=True, slots=True)
class Page:
    """Jobs, newest first, and the cursor of the page behind; None at the end."""

    rows: Sequence[RowMapping]
    next: str | None


@dataclass(frozen=True, slots=True)
class JobQueries:
    """Reads of one service's database."""

    engine: AsyncEngine

    async def find(self, job_id: str) -> JobRow | None:
        """The job; None where nobody requested it or decided about it (facts about an unknown job make a row, but no job)."""
        async with self.engine.connect() as connection:
            row = (await connection.execute(_FIND, {"job_id": job_id})).one_or_none()
        if row is None:
            return None
        state = JobState.stored(row[0])
        return JobRow(job_id, state, row[1], row[2]) if state.status else None

    async def now(self) -> datetime:
        """The clock by which everything about jobs is decided."""
        async with self.engine.connect() as connection:
            return (await connection.execute(_NOW)).scalar_one().astimezone(UTC)  # type: ignore[no-any-return]

    async def progress(self, job_id: str) -> list[ProgressRow]:
        """The latest sign of life of each of the job's attempts."""
        async with self.engine.connect() as connection:
            rows = await connection.execute(_PROGRESS, {"job_id": job_id})
            return [ProgressRow(at, StepProgressed.model_validate_json(data)) for at, data in rows]

    async def page(self, filters: Filters, limit: int, cursor: str | None) -> Page:
        """At most `limit` jobs behind `cursor`. Raises a 422 Problem for a cursor of another list."""
        given = {name: value for name, value in filters.query.items() if value is not None}
        conditions = ["requested_at IS NOT NULL", *(_FILTERS[name] for name in given)]
        place: dict[str, object] = {}
        if cursor is not None:
            at, key = read_cursor(cursor, filters.query, (moment, str))
            place = {"before_at": at, "before_key": key}
            conditions.append(_BEHIND)
        statement = text(_PAGE.format(conditions=" AND ".join(conditions)))
        async with self.engine.connect() as connection:
            found = await connection.execute(statement, {**given, **place, "limit": limit + 1})
            rows = found.mappings().all()
        if len(rows) <= limit:
            return Page(rows, None)
        last = rows[limit - 1]
        return Page(rows[:limit], make_cursor(filters.query, [last["requested_at"].isoformat(), last["key"]]))
