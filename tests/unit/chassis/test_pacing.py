"""A client asks for an absent broker at a walk: aiokafka alone spins."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiokafka import client as aiokafka_client
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.metadata import MetadataResponse_v1 as Metadata

from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.pacing import LONGEST_SECONDS, pace
from services.chassis.kafka.publisher import make_producer
from services.chassis.kernel.consuming.client import Client

PLACE = "127.0.0.1:1"


class Connection:
    """To a broker that is there."""

    def connected(self) -> bool:
        return True

    def close(self, **_: object) -> "asyncio.Future[None]":
        closed = asyncio.get_running_loop().create_future()
        closed.set_result(None)
        return closed


class Broker:
    """Away or there; counts who knocks."""

    def __init__(self) -> None:
        self.there, self.knocks = False, 0

    async def connect(self, *_: object, **__: object) -> Connection:
        self.knocks += 1
        if not self.there:
            raise ConnectionRefusedError
        return Connection()


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    monkeypatch.setattr(aiokafka_client, "create_conn", broker.connect)
    return broker


def knows_its_broker(client: AIOKafkaClient) -> AIOKafkaClient:
    client.cluster.update_metadata(Metadata([(0, "127.0.0.1", 1, None)], 0, []))
    return client


@contextmanager
def synchronized(client: AIOKafkaClient) -> Iterator[None]:
    """With the task that asks for metadata when told to."""
    client._sync_task = asyncio.ensure_future(client._md_synchronizer())
    yield
    client._sync_task.cancel()


async def test_metadata_is_asked_for_at_once_and_then_ten_times_a_second_at_most() -> None:
    client = AIOKafkaClient(bootstrap_servers=PLACE)
    asked = 0
    clock = asyncio.get_running_loop().time

    async def update(*_: object) -> bool:
        nonlocal asked
        asked += 1
        return True

    client._metadata_update = update
    pace(client)
    with synchronized(client):
        started = clock()
        for _ in range(4):
            await client.force_metadata_update()
        taken = clock() - started
    assert asked == 4
    assert taken >= 0.29


def of_a_producer() -> Any:
    return make_producer(Cluster(PLACE), "pace").client


def of_a_consumer() -> Any:
    return Client("toy", lambda: None, bootstrap_servers=PLACE, group_id=None)._client


@pytest.mark.parametrize("made", [of_a_producer, of_a_consumer])
async def test_a_broker_that_is_away_is_knocked_at_more_and_more_seldom_whoever_asks(
    made: Callable[[], Any], broker: Broker
) -> None:
    client, asking = knows_its_broker(made()), 5

    async def ask() -> None:
        while True:
            await client.ready(0)
            await asyncio.sleep(0.001)

    with synchronized(client):
        tasks = [asyncio.ensure_future(ask()) for _ in range(asking)]
        await asyncio.sleep(2)
        for task in tasks:
            task.cancel()
    assert (
        broker.knocks <= 10 + asking + 1
    )  # all of them once, then one for all: pauses of 0.05 to 0.1, 0.1 to 0.2, ... 0.5 to 1 s, in 2 s


async def test_a_broker_that_is_back_is_found_within_the_longest_pause_and_then_at_once(broker: Broker) -> None:
    client = knows_its_broker(of_a_producer())
    clock = asyncio.get_running_loop().time
    with synchronized(client):
        for _ in range(4):
            assert not await client.ready(0)
        broker.there = True
        started = clock()
        assert await client.ready(0)
        assert clock() - started < LONGEST_SECONDS + 5  # the machine may be slow
        knocks = broker.knocks
        assert await client.ready(0)
    assert broker.knocks == knocks


async def test_nothing_is_left_behind_by_a_client_that_stops_while_it_waits(broker: Broker) -> None:
    before = asyncio.all_tasks()
    producer = make_producer(Cluster(PLACE), "pace")
    client = knows_its_broker(producer.client)
    client._sync_task = asyncio.ensure_future(client._md_synchronizer())
    for _ in range(3):
        await client.ready(0)
    await producer.stop()
    assert asyncio.all_tasks() <= before
