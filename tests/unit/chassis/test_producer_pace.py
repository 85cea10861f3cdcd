"""A producer asks an absent broker for the leaders of its partitions at a walk: aiokafka alone spins."""

import asyncio

from services.chassis.cluster import Cluster
from services.chassis.publisher import make_producer


async def test_metadata_is_asked_for_at_once_and_then_ten_times_a_second_at_most() -> None:
    producer = make_producer(Cluster("127.0.0.1:1"), "pace")
    asked = 0
    clock = asyncio.get_running_loop().time

    async def update() -> bool:
        nonlocal asked
        asked += 1
        return True

    client = producer.client
    client._metadata_update = lambda *_: update()
    client._sync_task = asyncio.ensure_future(client._md_synchronizer())
    started = clock()
    await client.force_metadata_update()
    for _ in range(3):
        await client.force_metadata_update()
    taken = clock() - started
    client._sync_task.cancel()
    assert asked == 4
    assert taken >= 0.29
    await producer.stop()
