"""Reads for answers over HTTP: a session that was lost is replaced, a statement that was ended is not sent again."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from services.chassis.postgres.urls import Connection
from services.chassis.serving.reads import Reads, Rows


@pytest.fixture
async def reads(database_url: str) -> AsyncIterator[Reads]:
    found = Reads(database_url)
    yield found
    found.close()


async def _one(reads: Reads, statement: str) -> object:
    row = await reads.row(statement)
    assert row is not None
    return row[0]


async def test_a_read_on_a_session_that_was_lost_is_sent_again_on_a_new_one(reads: Reads) -> None:
    lost = await _one(reads, "SELECT pg_backend_pid()")
    other = Reads(reads._database.urls[0])
    assert await _one(other, f"SELECT pg_terminate_backend({lost}, 10000)") is True
    other.close()
    assert await _one(reads, "SELECT pg_backend_pid()") != lost


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
