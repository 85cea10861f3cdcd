"""What a batch asks of the database does not grow with its records: exact counts of statements and round trips."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from asyncpg.connection import LoggedQuery
from sqlalchemy import text

from schemas.topics import JOBS, REQUESTS
from services.chassis.kernel import store
from services.chassis.kernel.records import Partition
from services.chassis.kernel.statements import INSERT_POSITION, LOCK_POSITIONS
from services.chassis.kernel.transaction import batch, statements
from services.chassis.postgres.transactions import Transactions
from tests.log import read_all
from tests.toy import Toy, until

BATCH = 500


@asynccontextmanager
async def counted(transactions: Transactions) -> AsyncIterator[Counter[str]]:
    """Statements by their first word, BEGIN and COMMIT among them, while the block runs."""
    found: Counter[str] = Counter()

    def said(statement: LoggedQuery) -> None:
        if not any(
            words in statement.query for words in ("typeinfo_tree", "'jit'")
        ):  # asyncpg asks about types once a session
            found[statement.query.split(maxsplit=1)[0]] += 1

    async with transactions.begin() as session:
        await session.execute(text("SELECT 1"))
    assert transactions._idle is not None
    with transactions._idle.query_logger(said):
        yield found
        await asyncio.sleep(0)  # the last is said in the loop's next turn


async def apply(toy: Toy, records: list[Any]) -> Counter[str]:
    """What applying these records, half a thousand at a time, asks of the database."""
    partitions: set[Partition] = {(record.topic, record.partition) for record in records}
    async with toy.engine.begin() as connection:
        await connection.execute(INSERT_POSITION, [{"topic": t, "partition": p} for t, p in sorted(partitions)])
    async with counted(toy.transactions) as found:
        for first in range(0, len(records), BATCH):
            groups: dict[Partition, list[Any]] = {}
            for record in records[first : first + BATCH]:
                groups.setdefault((record.topic, record.partition), []).append(record)
            await batch.apply_batch(
                batch.Decider(toy.transactions, toy.domain), batch.Poll(groups, dict.fromkeys(groups, 0))
            )
    return found


async def own(toy: Toy, topic: str) -> list[Any]:
    found = await read_all(toy.settings.kafka_bootstrap, topic)
    return [record for record in found if toy.prefix in str(record.key)]


async def test_a_thousand_new_jobs_cost_six_statements_and_ten_round_trips(toy: Toy) -> None:
    """Positions; inbox and rows; rows, outbox, positions and signals: three a batch, in one transaction."""
    await toy.send(*(toy.requested(f"{number:04}") for number in range(1000)))
    found = await apply(toy, await own(toy, REQUESTS.name))
    assert found == {"SELECT": 2, "WITH": 4, "BEGIN": 2, "COMMIT": 2}
    assert found.total() == 10


async def test_a_thousand_further_events_of_known_jobs_cost_as_many(toy: Toy) -> None:
    await toy.send(*(toy.requested(f"{number:04}") for number in range(1000)))
    await apply(toy, await own(toy, REQUESTS.name))
    await toy.send(*(toy.cancelled(f"{number:04}") for number in range(1000)))
    found = await apply(toy, (await own(toy, REQUESTS.name))[-1000:])
    assert found == {"SELECT": 2, "WITH": 4, "BEGIN": 2, "COMMIT": 2}


async def test_own_events_that_come_back_cost_as_many(toy: Toy) -> None:
    async with toy.running():
        await toy.send(*(toy.requested(f"{number:04}") for number in range(100)))
        await until(lambda: _all_came_back(toy))
    records = await own(toy, JOBS.name)
    async with toy.engine.begin() as connection:
        await store.move_positions(connection, {(record.topic, record.partition): 0 for record in records})
    found = await apply(toy, records)
    assert found == {"SELECT": 1, "WITH": 2, "BEGIN": 1, "COMMIT": 1}


async def _all_came_back(toy: Toy) -> bool:
    return len(await own(toy, JOBS.name)) == 100


async def test_each_statement_of_a_batch_finds_its_rows_by_key_though_it_was_planned_for_empty_tables(toy: Toy) -> None:
    """A session plans each once; a plan that reads a whole table would cost more with each row."""
    table = next(iter(toy.domain.aggregates))
    asked = (LOCK_POSITIONS, statements.lock_rows((table,), True), statements.write(((table, ()),), True, True, True))
    for statement in asked:
        explained = text(f"EXPLAIN (GENERIC_PLAN) {statement.text}")
        async with toy.transactions.begin() as session:
            rows = await session.execute(explained, dict.fromkeys(explained.compile().params))
        plan = "\n".join(line for (line,) in rows)
        assert "Seq Scan" not in plan, plan
        assert "Index" in plan, plan
