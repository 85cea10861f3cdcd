"""What a consumer asks its broker beside its fetches, on a real broker."""

import asyncio

from aiokafka import TopicPartition

from schemas.topics import REQUESTS
from services.chassis.kafka.metadata import ask
from services.chassis.kernel.consuming.client import Client

_FETCH_SECONDS = 60


async def test_ends_and_ids_are_answered_while_a_fetch_waits_for_records(kafka: str) -> None:
    consumer = Client("toy", lambda: None, bootstrap_servers=kafka, group_id=None, fetch_max_wait_ms=_FETCH_SECONDS * 1000,
        request_timeout_ms=2 * _FETCH_SECONDS * 1000)  # fmt: skip
    await consumer.start()
    try:
        partition = TopicPartition(REQUESTS.name, 0)
        consumer.assign([partition])
        await consumer.seek_to_end(partition)
        assert await consumer.getmany(timeout_ms=500) == {}  # the fetch is under way
        async with asyncio.timeout(_FETCH_SECONDS / 2):
            ends = await consumer.end_offsets([partition])
            assert REQUESTS.name in (await ask(consumer._client, [REQUESTS.name])).topics
        assert ends == {partition: await consumer.position(partition)}
    finally:
        await consumer.stop()
