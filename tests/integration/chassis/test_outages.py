"""A transient fault is waited out: never a record dropped, never one applied twice, ready again by itself."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaError

from schemas.topics import REQUESTS
from services.devstack.stack import DevStack
from tests.faults.frozen import frozen
from tests.log import read_all
from tests.toy import Toy, until

JOBS_SENT = 300


@pytest.fixture
def servers(own_stack: DevStack) -> DevStack:
    return own_stack


async def load(toy: Toy) -> None:
    """Send jobs over a few seconds, those that were not acknowledged again: with the same ids, as an outsider should."""
    for start in range(0, JOBS_SENT, 20):
        events = [toy.requested(f"{number}") for number in range(start, start + 20)]
        while True:
            try:
                await toy.send(*events)
                break
            except (KafkaError, OSError):
                await asyncio.sleep(0.2)
        await asyncio.sleep(0.1)


async def assert_every_job_decided_once(toy: Toy) -> None:
    await until(lambda: _all_published(toy))
    tallies = await toy.tallies()
    assert {name: (tally.requests, tally.refused) for name, tally in tallies.items()} == {
        f"{number}": (1, 1) for number in range(JOBS_SENT)
    }
    assert await toy.scalar("SELECT count(*) = count(DISTINCT id) FROM ledger")


async def _all_published(toy: Toy) -> bool:
    return len({record.key for record in await toy.log()}) == JOBS_SENT


async def test_the_broker_restarts_under_load(own_stack: Any, toy: Toy) -> None:
    async with toy.running() as service:
        loading = asyncio.create_task(load(toy))
        await asyncio.sleep(0.7)
        await asyncio.to_thread(own_stack.kafka.stop)
        await until(lambda: not service.health.ready)
        await asyncio.to_thread(own_stack.kafka.start)
        await loading
        await assert_every_job_decided_once(toy)
        await until(lambda: service.health.ready, what=lambda: service.health.missing)


async def test_the_database_restarts_under_load(own_stack: Any, toy: Toy) -> None:
    async with toy.running() as service:
        loading = asyncio.create_task(load(toy))
        await asyncio.sleep(0.7)
        await asyncio.to_thread(own_stack.postgres.stop)
        await until(lambda: not service.health.ready)
        assert service.health.live
        await asyncio.to_thread(own_stack.postgres.start)
        await loading
        await assert_every_job_decided_once(toy)
        await until(lambda: service.health.ready, what=lambda: service.health.missing)


async def test_a_service_ends_although_its_database_hangs(own_stack: Any, tmp_path: Path) -> None:
    toy = Toy(own_stack.kafka_bootstrap, own_stack.database_url, tmp_path, database_seconds=2.0)
    await toy.create()
    await toy.engine.dispose()
    service = toy.service()
    lifespan = service.lifespan()
    await lifespan.__aenter__()
    await until(lambda: service.health.ready, what=lambda: service.health.missing)
    with frozen(own_stack.postgres):
        await until(lambda: not service.health.ready)
        await asyncio.wait_for(lifespan.__aexit__(None, None, None), 90)


async def test_a_service_that_starts_before_its_surroundings_becomes_ready_when_they_are_there(
    own_stack: Any, toy: Toy
) -> None:
    await asyncio.to_thread(own_stack.postgres.stop)
    await asyncio.to_thread(own_stack.kafka.stop)
    service = toy.service()
    async with service.lifespan():
        await asyncio.sleep(1)
        assert not service.health.ready
        await asyncio.to_thread(own_stack.kafka.start)
        await asyncio.to_thread(own_stack.postgres.start)
        await until(lambda: service.health.ready, what=lambda: service.health.missing)
        await toy.send(toy.requested("a"))
        await until(lambda: _decided(toy))


async def test_a_log_that_was_replaced_stops_the_service_and_says_so(own_stack: Any, toy: Toy) -> None:
    async with toy.running():
        await toy.send(*(toy.requested(f"{number}") for number in range(20)))
        await until(lambda: _applied(toy, 20))
    records = await read_all(own_stack.kafka_bootstrap, REQUESTS.name)
    assert records
    async with toy.engine.begin() as connection:
        from sqlalchemy import text

        await connection.execute(text("UPDATE position SET next_offset = next_offset + 100"))
    service = toy.service()
    async with service.lifespan():
        await until(lambda: "another log" in service.health.missing.get("log", ""))


async def _decided(toy: Toy) -> bool:
    return len(await toy.log()) == 1


async def _applied(toy: Toy, count: int) -> bool:
    return len(await toy.tallies()) == count
