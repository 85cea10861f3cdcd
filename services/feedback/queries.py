"""Contains all database reads for HTTP; they see committed rows and take no locks."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis.executor.attempts import AttemptState

_OF_JOB = text("SELECT CAST(state AS text) FROM attempt WHERE job_id = :job_id ORDER BY requested_at, key")


async def attempts_of(engine: AsyncEngine, job_id: str) -> list[AttemptState]:
    """The job's attempts at feedback steps, earliest first."""
    async with engine.connect() as connection:
        rows = await connection.scalars(_OF_JOB, {"job_id": job_id})
        return [AttemptState.stored(row) for row in rows]
