"""A statement that nobody answers is given up after a while, and its session with it: no transaction stays open in the pool."""

import pytest
from sqlalchemy import text

from services.chassis.kernel import store
from services.chassis.process.transient import is_transient
from tests.toy import Toy

SESSION = text("SELECT pg_backend_pid()")
UNFINISHED = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid AND state LIKE 'idle in transaction%'")


async def test_a_statement_that_is_not_answered_in_time_is_a_fault_of_the_surroundings_and_ends_its_session(
    toy: Toy,
) -> None:
    engine = store.connect(toy.settings.database_url_for(toy.name), pool_size=1, statement_seconds=0.3)

    sessions: list[int] = []

    async def hang() -> None:
        async with engine.begin() as connection:
            sessions.append(await connection.scalar(SESSION))
            await connection.execute(text("SELECT pg_sleep(60)"))

    try:
        with pytest.raises(TimeoutError, match=r"did not answer a statement within 0\.3 s") as caught:
            await hang()
        assert is_transient(caught.value)
        async with engine.begin() as connection:
            assert await connection.scalar(SESSION) not in sessions
            assert await connection.scalar(UNFINISHED, {"pid": sessions[0]}) == 0
    finally:
        await engine.dispose()
