"""The same requests for every arm, and how fast they were answered, read from the log that the answers lie on."""

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from numpy.typing import NDArray

from schemas.envelope import encode
from schemas.requests import JobRequested
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.publisher import outside_event
from services.chassis.kernel import log

PARTITIONS = 6
_BATCH = 2000


Times = NDArray[np.int64]
"""Times in milliseconds since 1970."""


async def create_topics(bootstrap: str, *names: str) -> None:
    """Create topics with as many partitions as the catalogue's."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])
    finally:
        await admin.close()


def requests(count: int) -> Iterator[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
    """Yield key, value and headers of `count` requests, each of another job."""
    run = uuid4().hex[:8]
    for number in range(count):
        job_id = f"job-{run}-{number:07}"
        request = {"job_id": job_id, "requester": "relaycore", "pipeline": "none", "register_as": f"model-{number % 100}"}
        event = outside_event("relaycore", JobRequested(job_id=job_id, request=request), correlation_id=job_id)
        value, headers = encode(event)
        yield job_id.encode(), value, headers


async def fill(bootstrap: str, topic: str, count: int) -> None:
    """Append `count` requests."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, enable_idempotence=True, acks="all", linger_ms=5, max_batch_size=262_144
    )
    await producer.start()
    try:
        sent = []
        for key, value, headers in requests(count):
            sent.append(await producer.send(topic, value, key, headers=headers))
            if len(sent) == _BATCH:
                await asyncio.gather(*sent)
                sent.clear()
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def count_records(bootstrap: str, topic: str) -> int:
    """Return the number of records of a topic."""
    spans = await log.bounds(Cluster(bootstrap), [topic])
    return sum(end - begin for begin, end in spans.values())


async def wait_for_records(bootstrap: str, topic: str, count: int, seconds: float) -> None:
    """Wait until the topic has `count` records. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while await count_records(bootstrap, topic) < count:
            await asyncio.sleep(0.5)


async def answered_at(bootstrap: str, topic: str) -> Times:
    """Return the sorted times at which each answer was sent, in milliseconds since 1970."""
    times: list[int] = []
    async with log.read(Cluster(bootstrap), await log.bounds(Cluster(bootstrap), [topic])) as chunks:
        async for chunk in chunks:
            times += [record.timestamp for record in chunk]
    return np.sort(np.asarray(times, dtype=np.int64))


def rate(times: Times, first: float = 0.1, last: float = 0.9) -> float:
    """Return the answers per second between two shares of a run, without its start and its end."""
    low, high = int(len(times) * first), int(len(times) * last) - 1
    return 1000 * (high - low) / max(1, int(times[high]) - int(times[low]))
