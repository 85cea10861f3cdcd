"""Reads for answers over HTTP: a session that was lost is replaced, a statement that was ended is not sent again."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from services.chassis.postgres.urls import Connection
from services.chassis.serving.reads import Reads, Rows
from tests.faults.proxy import proxy_to_database
from tests.toy import until


@pytest.fixture
async def reads(database_url: str) -> AsyncIterator[Reads]:
    found = Reads(database_url)
    yield found
    found.close()


async def _one(reads: Reads, statement: str) -> object:
    row = await reads.row(statement)
    assert row is not None
    return row[0]


async def _end(url: str, session: object) -> None:
    other = Reads(url)
    assert await _one(other, f"SELECT pg_terminate_backend({session}, 10000)") is True
    other.close()


async def test_a_read_on_a_session_that_was_lost_is_sent_again_on_a_new_one(reads: Reads, database_url: str) -> None:
    lost = await _one(reads, "SELECT pg_backend_pid()")
    await _end(database_url, lost)
    assert await _one(reads, "SELECT pg_backend_pid()") != lost


async def test_a_read_on_a_session_that_the_server_has_ended_in_words_only_is_sent_again(database_url: str) -> None:
    """The server says first why it ends a session; until the end itself arrives, asyncpg cannot use that session."""
    async with proxy_to_database(database_url, passes_ends=False) as (_, through):
        reads = Reads(through)
        lost = await _one(reads, "SELECT pg_backend_pid()")
        await _end(database_url, lost)
        assert await _one(reads, "SELECT pg_backend_pid()") != lost
        reads.close()


async def test_a_read_that_the_database_ended_is_not_sent_again(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    """A role may bound its statements: sent again, each that is too long would cost twice."""
    sent: list[str] = []
    read = reads._read

    async def noted(connection: Connection, statement: str, arguments: Sequence[Any]) -> Rows:
        sent.append(statement)
        return await read(connection, statement, arguments)

    await reads.rows("SET statement_timeout = 200")
    monkeypatch.setattr(reads, "_read", noted)
    with pytest.raises(asyncpg.QueryCanceledError):
        await reads.rows("SELECT pg_sleep(60)")
    assert sent == ["SELECT pg_sleep(60)"]


async def test_a_read_that_takes_too_long_ends_on_the_server_too(database_url: str) -> None:
    slow, other = Reads(database_url, statement_seconds=0.5), Reads(database_url)
    session = await _one(slow, "SELECT pg_backend_pid()")
    with pytest.raises(TimeoutError):
        await slow.rows("SELECT pg_sleep(60)")
    await until(lambda: _gone(other, session))
    slow.close()
    other.close()


async def _gone(reads: Reads, session: object) -> bool:
    return await _one(reads, f"SELECT count(*) FROM pg_stat_activity WHERE pid = {session}") == 0
