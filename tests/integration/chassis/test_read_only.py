"""Sessions that belong to the past, since the server only reads or a table changed under them, are replaced without a restart."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from services.chassis import store
from services.chassis.surroundings import ReadsOnly, ends_session, is_surroundings
from tests.toy import Toy, until


@asynccontextmanager
async def standby(toy: Toy) -> AsyncIterator[None]:
    """For the block, new sessions of the database may only read, as those to a standby; nobody ends them afterwards."""
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


async def test_a_service_whose_database_only_reads_is_not_ready_and_heals_without_a_restart(toy: Toy) -> None:
    async with toy.running() as service:
        await toy.send(toy.requested("before"))
        await until(lambda: decided(toy, 1))
        async with standby(toy):
            await until(lambda: "only reads" in service.health.missing.get("database", ""))
            await toy.send(*(toy.requested(f"{number}") for number in range(6)))
            await until(lambda: "handling" in service.health.missing or "consuming" in service.health.missing)
        await until(lambda: decided(toy, 7), seconds=60, what=lambda: service.health.missing)
        await until(lambda: service.health.ready, what=lambda: service.health.missing)
    assert await toy.scalar("SELECT count(*) = 0 FROM dead_letter WHERE state <> 'unreadable'")
    assert {tally.requests for tally in (await toy.tallies()).values()} == {1}


async def decided(toy: Toy, count: int) -> bool:
    return len({record.key for record in await toy.log()}) == count


async def test_a_table_that_changes_under_prepared_statements_costs_no_record(toy: Toy) -> None:
    async with toy.running():
        await toy.send(toy.requested("a"))
        await until(lambda: decided(toy, 1))
        await toy.send(toy.cancelled("a"))
        await until(lambda: ordered(toy, 2))
        async with toy.engine.begin() as connection:
            await connection.execute(text("ALTER TABLE tally ALTER COLUMN own_event_id TYPE varchar(200)"))
        await toy.send(toy.cancelled("a"))
        await until(lambda: ordered(toy, 3))
    assert await toy.scalar("SELECT count(*) = 0 FROM dead_letter WHERE state <> 'unreadable'")


async def ordered(toy: Toy, count: int) -> bool:
    return len((await toy.tallies())["a"].order) == count


async def test_a_session_that_may_only_read_fails_once_and_then_the_whole_pool_is_replaced(toy: Toy) -> None:
    engine = store.connect(toy.settings.database_url_for(toy.name), pool_size=3)
    async with engine.connect() as first, engine.connect() as second:
        for connection in (first, second):
            await connection.execute(text("SET SESSION default_transaction_read_only = on"))
            await connection.commit()
    with pytest.raises(DBAPIError) as caught:
        async with engine.begin() as connection:
            await connection.execute(text("DELETE FROM sweep"))
    assert is_surroundings(caught.value)
    for _ in range(3):
        async with engine.connect() as one, engine.connect() as other:
            for connection in (one, other):
                await connection.execute(text("DELETE FROM sweep"))
                await connection.commit()
    await engine.dispose()


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.ReadOnlySQLTransactionError("cannot execute INSERT in a read-only transaction"),
        asyncpg.InvalidSQLStatementNameError('prepared statement "__asyncpg_stmt_1__" does not exist'),
        asyncpg.DuplicatePreparedStatementError('prepared statement "__asyncpg_stmt_1__" already exists'),
        asyncpg.FeatureNotSupportedError("cached plan must not change result type"),
        ReadsOnly(),
    ],
)
def test_an_error_that_belongs_to_its_session_is_waited_out(error: Exception) -> None:
    assert ends_session(error)
    assert is_surroundings(error)


def test_an_error_of_the_statement_is_not() -> None:
    for error in (
        asyncpg.UniqueViolationError("duplicate key"),
        asyncpg.FeatureNotSupportedError("not here"),
        ValueError("no"),
    ):
        assert not ends_session(error)
        assert not is_surroundings(error)
