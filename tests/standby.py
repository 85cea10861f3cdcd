"""A database that only reads for a while, as after a failover to a standby."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.engine import make_url

from services.chassis.kernel import store
from tests.toy import Toy


@asynccontextmanager
async def standby(toy: Toy) -> AsyncIterator[None]:
    """Make new sessions of the database read-only during the block, as on a standby; they stay open afterwards."""
    server = store.connect(
        make_url(toy.settings.database_url_for(toy.name)).set(database="postgres").render_as_string(hide_password=False)
    )
    name = f"neuroweaver_{toy.name}"

    async def say(*statements: str) -> None:
        async with server.connect() as pooled:
            connection = await pooled.execution_options(isolation_level="AUTOCOMMIT")
            for statement in statements:
                await connection.execute(text(statement))

    await say(
        f"ALTER DATABASE {name} SET default_transaction_read_only = on",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()",
    )
    try:
        yield
    finally:
        await say(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await server.dispose()
