"""Reads the attempts at feedback steps for HTTP; it sees committed rows and takes no locks."""

from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis.executor.attempts import AttemptState
from services.feedback import statements


async def attempts_of(engine: AsyncEngine, job_id: str) -> list[AttemptState]:
    """Return the job's attempts at feedback steps, earliest first."""
    async with engine.connect() as connection:
        rows = await connection.scalars(statements.ATTEMPTS_OF_JOB, {"job_id": job_id})
        return [AttemptState.stored(row) for row in rows]
