"""Sessions that belong to the past, since the server only reads or a table changed under them, are replaced without a restart."""

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.chassis.kernel import store
from services.chassis.process.transient import ReadsOnly, ends_session, is_transient
from tests.faults.proxy import proxy_to_database
from tests.standby import standby
from tests.toy import Toy, until

TRANSACTION_TIMEOUT = asyncpg.PostgresError.new({"C": "25P04", "M": "terminating connection due to transaction timeout"})


async def test_a_service_whose_database_only_reads_is_not_ready_and_heals_without_a_restart(toy: Toy) -> None:
    async with toy.running() as service:
        await toy.send(toy.requested("before"))
        await until(lambda: decided(toy, 1))
        async with standby(toy):
            await until(lambda: "read-only" in service.health.missing.get("database", ""))
            await toy.send(*(toy.requested(f"{number}") for number in range(6)))
            await until(lambda: "handling" in service.health.missing or "consuming" in service.health.missing)
        await until(lambda: decided(toy, 7), what=lambda: service.health.missing)
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


async def test_a_table_that_is_gone_for_a_while_costs_no_record(toy: Toy) -> None:
    async with toy.running() as service:
        await toy.send(toy.requested("before"))
        await until(lambda: decided(toy, 1))
        async with toy.engine.begin() as connection:
            await connection.execute(text("ALTER TABLE inbox RENAME TO away"))
        await toy.send(*(toy.requested(f"{number}") for number in range(30)))
        await until(lambda: '"inbox" does not exist' in service.health.missing.get("handling", ""))
        async with toy.engine.begin() as connection:
            await connection.execute(text("ALTER TABLE away RENAME TO inbox"))
        await until(lambda: decided(toy, 31), what=lambda: service.health.missing)
    assert await toy.scalar("SELECT count(*) = 0 FROM dead_letter")


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
    assert is_transient(caught.value)
    for _ in range(3):
        async with engine.connect() as one, engine.connect() as other:
            for connection in (one, other):
                await connection.execute(text("DELETE FROM sweep"))
                await connection.commit()
    await engine.dispose()


async def test_a_session_that_the_server_has_ended_in_words_only_is_replaced_too(toy: Toy) -> None:
    """The end itself comes later; until then asyncpg cannot use that session, and does not know it closed."""
    url = toy.settings.database_url_for(toy.name)
    async with proxy_to_database(url, passes_ends=False) as (_, through):
        engine = store.connect(through, probe=False)
        async with engine.connect() as connection:
            lost = await connection.scalar(text("SELECT pg_backend_pid()"))
        assert await toy.scalar(f"SELECT pg_terminate_backend({lost}, 10000)")
        with pytest.raises(DBAPIError) as caught:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        assert is_transient(caught.value)
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT pg_backend_pid()")) != lost
        await engine.dispose()


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.ReadOnlySQLTransactionError("cannot execute INSERT in a read-only transaction"),
        asyncpg.InvalidSQLStatementNameError('prepared statement "__asyncpg_stmt_1__" does not exist'),
        asyncpg.DuplicatePreparedStatementError('prepared statement "__asyncpg_stmt_1__" already exists'),
        asyncpg.FeatureNotSupportedError("cached plan must not change result type"),
        asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
        ReadsOnly(),
    ],
)
def test_an_error_that_belongs_to_its_session_is_waited_out(error: Exception) -> None:
    assert ends_session(error)
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.TooManyConnectionsError("sorry, too many clients already"),
        asyncpg.AdminShutdownError("terminating connection due to administrator command"),
        asyncpg.CannotConnectNowError("the database system is starting up"),
        asyncpg.InsufficientPrivilegeError("permission denied for table outbox"),
        asyncpg.InvalidAuthorizationSpecificationError('role "nw" is not permitted to log in'),
        asyncpg.InvalidCatalogNameError('database "neuroweaver_trainer" does not exist'),
        asyncpg.InvalidSchemaNameError('schema "operational" does not exist'),
        asyncpg.UndefinedTableError('relation "outbox" does not exist'),
        asyncpg.UndefinedColumnError('column "headers" of relation "outbox" does not exist'),
        asyncpg.IdleInTransactionSessionTimeoutError("terminating connection due to idle-in-transaction timeout"),
        TRANSACTION_TIMEOUT,
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.InterfaceError("connection is closed"),
    ],
)
def test_an_error_of_the_server_is_waited_out_without_sqlalchemy_too(error: Exception) -> None:
    assert is_transient(error)


def test_an_error_of_the_statement_is_not() -> None:
    for error in (
        asyncpg.UniqueViolationError("duplicate key"),
        asyncpg.FeatureNotSupportedError("not here"),
        asyncpg.InvalidTextRepresentationError('invalid input syntax: "cannot switch to state"'),
        asyncpg.CheckViolationError("cached plan must not change result type"),
        ValueError("no"),
    ):
        assert not ends_session(error)
        assert not is_transient(error)
