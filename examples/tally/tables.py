"""The tally's one table. A service of NeuroWeaver has it from its migrations."""

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncEngine

from examples.tally.domain import TALLY
from services.chassis.kernel.tables import aggregate_table

metadata = MetaData()
tally = aggregate_table(metadata, TALLY)


async def create_tables(engine: AsyncEngine) -> None:
    """Create the table if it is missing; the chassis' own tables and both schemas exist already."""
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
