"""The sessions of batches, on asyncpg alone: used again when their transaction has ended for certain, closed in any doubt."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from services.chassis.kernel import store
from services.chassis.postgres.transactions import RolledBack, Session, Transactions
from services.chassis.process.transient import is_transient
from tests.faults.proxy import proxy_to_database
from tests.toy import Toy, until

REFUSED = "SELECT CAST('no number' AS int)"
KEEP = text("INSERT INTO ledger (id) VALUES (:id)")
SESSION = "SELECT coalesce((SELECT state FROM pg_stat_activity WHERE pid = {}), 'ended')"


class Other(Exception):
    """A fault that the database has no part in."""


@pytest.fixture
async def transactions(toy: Toy) -> AsyncIterator[Transactions]:
    opened = store.transactions(toy.settings.database_url_for(toy.name), statement_seconds=0.5)
    yield opened
    await opened.close()


async def scalar(session: Session, sql: str, **values: Any) -> Any:
    ((found,),) = await session.execute(text(sql), values)
    return found


async def session_of(transactions: Transactions) -> Any:
    async with transactions.begin() as session:
        return await scalar(session, "SELECT pg_backend_pid()")


async def kept(toy: Toy) -> Any:
    return await toy.scalar("SELECT coalesce(string_agg(id, ',' ORDER BY id), '') FROM ledger")


async def test_a_block_that_ends_is_committed_and_its_session_used_again(toy: Toy, transactions: Transactions) -> None:
    first = await session_of(transactions)
    async with transactions.begin() as session:
        await session.execute(KEEP, {"id": "a"})
        assert await scalar(session, "SELECT pg_backend_pid()") == first
    assert await kept(toy) == "a"


async def test_several_values_are_written_one_after_the_other(toy: Toy, transactions: Transactions) -> None:
    async with transactions.begin() as session:
        assert list(await session.execute(KEEP, [{"id": "a"}, {"id": "b"}])) == []
    assert await kept(toy) == "a,b"


async def test_a_name_that_is_given_twice_is_one_parameter(transactions: Transactions) -> None:
    async with transactions.begin() as session:
        assert await scalar(session, "SELECT CAST(:a AS text) || :b || CAST(:a AS text)", b="-", a="x") == "x-x"


async def keep_and(transactions: Transactions, statement: str) -> None:
    async with transactions.begin() as session:
        await session.execute(KEEP, {"id": "a"})
        await session.execute(text(statement))


async def test_a_block_that_raises_leaves_nothing_and_its_session_is_used_again(
    toy: Toy, transactions: Transactions
) -> None:
    async def fail() -> None:
        async with transactions.begin() as session:
            await session.execute(KEEP, {"id": "a"})
            raise Other

    first = await session_of(transactions)
    with pytest.raises(Other):
        await fail()
    assert await session_of(transactions) == first
    assert await kept(toy) == ""


async def test_a_statement_that_the_database_refuses_leaves_nothing(toy: Toy, transactions: Transactions) -> None:
    with pytest.raises(asyncpg.DataError) as caught:
        await keep_and(transactions, REFUSED)
    assert not is_transient(caught.value)
    assert await kept(toy) == ""


async def test_a_block_that_goes_on_behind_a_refused_statement_is_not_taken_for_committed(
    toy: Toy, transactions: Transactions
) -> None:
    """PostgreSQL answers such a COMMIT with ROLLBACK, and reports no error."""

    async def go_on() -> None:
        async with transactions.begin() as session:
            await session.execute(KEEP, {"id": "a"})
            with suppress(asyncpg.DataError):
                await session.execute(text(REFUSED))

    with pytest.raises(RolledBack):
        await go_on()
    assert await kept(toy) == ""


async def test_a_statement_without_an_answer_ends_its_session(toy: Toy, transactions: Transactions) -> None:
    first = await session_of(transactions)
    with pytest.raises(TimeoutError, match=r"did not answer a statement within 0\.5 s") as caught:
        await keep_and(transactions, "SELECT pg_sleep(60)")
    assert is_transient(caught.value)
    assert await session_of(transactions) != first
    await until(lambda: _is(toy, first, "ended"))
    assert await kept(toy) == ""


async def test_a_block_that_is_cancelled_ends_its_session(toy: Toy, transactions: Transactions) -> None:
    first, inside = await session_of(transactions), asyncio.Event()

    async def work() -> None:
        async with transactions.begin() as session:
            await session.execute(KEEP, {"id": "a"})
            inside.set()
            await session.execute(text("SELECT pg_sleep(60)"))

    task = asyncio.create_task(work())
    await inside.wait()
    await until(lambda: _is(toy, first, "active"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await session_of(transactions) != first
    await until(lambda: _is(toy, first, "ended"))
    assert await kept(toy) == ""


async def test_a_session_that_only_reads_fails_once(toy: Toy, transactions: Transactions) -> None:
    async with transactions.begin() as session:
        await session.execute(text("SET SESSION default_transaction_read_only = on"))
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError) as caught:
        await keep_and(transactions, "SELECT 1")
    assert is_transient(caught.value)
    async with transactions.begin() as session:
        await session.execute(KEEP, {"id": "b"})
    assert await kept(toy) == "b"


async def test_a_session_that_the_server_has_ended_fails_once_at_most(toy: Toy, transactions: Transactions) -> None:
    """Where its end has arrived, it does not fail at all."""
    first = await session_of(transactions)
    assert await toy.scalar(f"SELECT pg_terminate_backend({first}, 10000)")
    await until(lambda: transactions._idle is not None and transactions._idle.is_closed())
    assert await session_of(transactions) != first


async def test_a_session_that_the_server_has_ended_in_words_only_fails_once(toy: Toy) -> None:
    url = toy.settings.database_url_for(toy.name)
    async with proxy_to_database(url, passes_ends=False) as (_, through):
        transactions = store.transactions(through)
        first = await session_of(transactions)
        assert await toy.scalar(f"SELECT pg_terminate_backend({first}, 10000)")
        with pytest.raises(Exception) as caught:
            await session_of(transactions)
        assert is_transient(caught.value)
        assert await session_of(transactions) != first
        await transactions.close()


async def test_transactions_at_the_same_time_see_nothing_of_each_other(toy: Toy, transactions: Transactions) -> None:
    async with transactions.begin() as one, transactions.begin() as other:
        await one.execute(KEEP, {"id": "a"})
        assert await scalar(other, "SELECT count(*) FROM ledger") == 0
        assert await scalar(one, "SELECT pg_backend_pid()") != await scalar(other, "SELECT pg_backend_pid()")
    assert await kept(toy) == "a"


async def test_a_transaction_that_waits_in_vain_for_a_lock_gives_its_own_locks_back(
    toy: Toy, transactions: Transactions
) -> None:
    """A server process that waits for a lock does not notice that its client is gone: it must be told."""
    async with transactions.begin() as session:
        await session.execute(KEEP, [{"id": "a"}, {"id": "b"}])
    async with toy.engine.begin() as other:
        await other.execute(text("SELECT id FROM ledger WHERE id = 'b' FOR UPDATE"))
        first = await session_of(transactions)
        with pytest.raises(TimeoutError):
            await keep_from(transactions, "a", "b")
        await until(lambda: _is(toy, first, "ended"))
        assert await toy.scalar("SELECT count(*) FROM (SELECT FROM ledger WHERE id = 'a' FOR UPDATE NOWAIT) AS free") == 1


async def keep_from(transactions: Transactions, *names: str) -> None:
    async with transactions.begin() as session:
        for name in names:
            await session.execute(text("SELECT id FROM ledger WHERE id = :id FOR UPDATE"), {"id": name})


async def test_a_database_that_refuses_sessions_is_no_fault_of_a_record(toy: Toy, database_url: str) -> None:
    url = toy.settings.database_url_for(toy.name)
    server, refused = await asyncpg.connect(database_url), store.transactions(url)
    allow = f'ALTER DATABASE "{make_url(url).database}" ALLOW_CONNECTIONS {{}}'
    await server.execute(allow.format("false"))
    with pytest.raises(ConnectionError, match="not currently accepting connections") as caught:
        await session_of(refused)
    await server.execute(allow.format("true"))
    assert is_transient(caught.value)
    await session_of(refused)
    await refused.close()
    await server.close()


async def test_a_statement_whose_values_are_missing_is_a_fault_of_the_program(transactions: Transactions) -> None:
    with pytest.raises(KeyError):
        async with transactions.begin() as session:
            await session.execute(KEEP, {})


async def test_a_session_in_use_is_closed_when_its_transaction_has_ended(toy: Toy, transactions: Transactions) -> None:
    async with transactions.begin() as session:
        first = await scalar(session, "SELECT pg_backend_pid()")
        await transactions.close()
    await until(lambda: _is(toy, first, "ended"))


async def _is(toy: Toy, session: int, state: str) -> bool:
    return bool(await toy.scalar(SESSION.format(session)) == state)
