"""Other programs may write in transactions: what is aborted and a transaction's marker are nothing to read, an open one is said."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer

from schemas.envelope import encode
from schemas.topics import REQUESTS
from services.chassis.kernel import log
from services.chassis.kernel.consuming import lag
from services.chassis.kernel.operations.partitions.listing import listed
from services.chassis.replay import rebuild as replay
from services.chassis.serving.service import Service
from tests.toy import Toy, until

PARTITION = 1


@asynccontextmanager
async def transactional(toy: Toy) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=toy.settings.kafka_bootstrap, transactional_id=toy.name)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def write(producer: AIOKafkaProducer, toy: Toy, name: str) -> None:
    value, headers = encode(toy.requested(name))
    await producer.send_and_wait(REQUESTS.name, value, name.encode(), PARTITION, headers=headers)


async def position_is_below_the_end(toy: Toy) -> bool:
    """There is nothing left to read, and yet the log goes on behind what was applied."""
    _, end = (await log.bounds(toy.settings.cluster, [REQUESTS.name]))[REQUESTS.name, PARTITION]
    of_partition = f"topic = '{REQUESTS.name}' AND partition = {PARTITION}"
    position = int(await toy.scalar(f"SELECT max(next_offset) FROM position WHERE {of_partition}") or 0)
    return 0 < position < end


async def is_at_its_end(toy: Toy, service: Service) -> bool:
    """Each partition of the topic is listed so, and the service is ready: it has also looked at what it reported as stuck."""
    views = await listed(toy.engine, service.reading)
    return service.health.ready and {view.state for view in views if view.topic == REQUESTS.name} == {"at its end"}


async def test_a_transaction_leaves_nothing_to_read_behind_and_is_named_while_it_is_open(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag, "STUCK_SECONDS", 1.0)
    monkeypatch.setattr(lag, "_LOOK_SECONDS", 0.2)
    async with toy.running() as service, transactional(toy) as producer:
        for name, end in (("committed", producer.commit_transaction), ("aborted", producer.abort_transaction)):
            await producer.begin_transaction()
            await write(producer, toy, name)
            await end()
        await until(lambda: toy.scalar("SELECT count(*) = 1 FROM tally"))
        await until(lambda: position_is_below_the_end(toy))
        await until(lambda: is_at_its_end(toy, service), what=lambda: service.health.missing)
        since = service.health.conditions["moving"].since
        await asyncio.sleep(3 * lag.STUCK_SECONDS + 2)
        assert await is_at_its_end(toy, service), service.health.missing
        assert service.health.conditions["moving"].since == since
        await producer.begin_transaction()
        await write(producer, toy, "open")
        await until(lambda: "moving" in service.health.missing)
        assert "another program's transaction is open from offset" in service.health.missing["moving"]
        assert (await replay.verify(service.projection)).differences == 0
        await producer.abort_transaction()
        await until(lambda: service.health.ready, what=lambda: service.health.missing)
    assert (await toy.tallies()).keys() == {"committed"}
