"""Reads the log with assigned consumers that join no consumer group, so that no service's offsets change.

Audit, verify and rebuild read through this module; it returns only committed records.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager, nullcontext
from datetime import UTC, datetime, timedelta

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from schemas.topics import CATALOGUE
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.fetch.batches import survive_any_batch
from services.chassis.kafka.reach import start
from services.chassis.kernel.records import Partition

Range = tuple[int, int]
"""First offset and the offset after the last."""

_CHUNK_RECORDS = 1000
_POLL_MS = 200
STALL_SECONDS = 60.0
"""How long a read may make no progress before it raises LogReadStalled."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class LogReadStalled(TimeoutError):
    """A read makes no progress towards its end: that offset does not exist, or the broker is unreachable."""


class UnknownTopic(ValueError):
    """The cluster has no such topic."""


async def bounds(cluster: Cluster, topics: Iterable[str]) -> dict[Partition, Range]:
    """Return the range of offsets that every partition of `topics` has now. Raises UnknownTopic and the broker's errors."""
    partitions = await _partitions(cluster, sorted(set(topics)))
    async with _consumer(cluster, partitions) as consumer:
        begins, ends = await asyncio.gather(consumer.beginning_offsets(partitions), consumer.end_offsets(partitions))
    return {(p.topic, p.partition): (begins[p], ends[p]) for p in partitions}


async def first_at(cluster: Cluster, spans: Mapping[Partition, Range], moment: datetime) -> dict[Partition, int]:
    """Return per partition of `spans` the first offset whose record time is `moment` or later; its end where there is none.

    Raises the broker's errors.
    """
    milliseconds = max(0, -((_EPOCH - moment) // _MILLISECOND))  # rounded up; -1 and -2 mean something else to a broker
    wanted = [TopicPartition(*partition) for partition in spans]
    async with _consumer(cluster, wanted) as consumer:
        found = await consumer.offsets_for_times(dict.fromkeys(wanted, milliseconds))
    offsets = {(p.topic, p.partition): place.offset for p, place in found.items() if place is not None}
    return {p: min(max(offsets.get(p, end), first), end) for p, (first, end) in spans.items()}


async def cluster_id(cluster: Cluster) -> str:
    """Return the cluster id that the broker reports. Raises the broker's errors."""
    admin = AIOKafkaAdminClient(**cluster.connection(), client_id="neuroweaver-log")
    try:
        await start(admin, cluster)
        return str((await admin.describe_cluster())["cluster_id"])
    finally:
        await admin.close()


async def passed(cluster: Cluster, ranges: Mapping[Partition, Range]) -> dict[Partition, int]:
    """Return the first readable offset of each range, or its end where the range has no readable record (transaction
    markers and aborted records are not readable). Raises LogReadStalled and the broker's errors."""
    reached = {partition: end for partition, (_, end) in ranges.items()}
    async with read(cluster, ranges, first_only=True) as chunks:
        async for chunk in chunks:
            reached |= {(record.topic, record.partition): record.offset for record in chunk}
    return reached


@asynccontextmanager
async def read(
    cluster: Cluster, ranges: Mapping[Partition, Range], *, first_only: bool = False
) -> AsyncIterator[AsyncIterator[list[ConsumerRecord]]]:
    """Give every record of [first, end) of each partition, or only the first, in chunks and in order per partition.

    Leaving the block ends the connection, also before the last chunk. The chunks wait up to `STALL_SECONDS` for an end that
    the log has not reached yet. They raise LogReadStalled and the broker's errors.
    """
    wanted = {TopicPartition(*partition): span for partition, span in ranges.items() if span[0] < span[1]}
    async with (
        _consumer(cluster, wanted) if wanted else nullcontext() as consumer,
        aclosing(_chunks(consumer, wanted, first_only)) as chunks,
    ):
        yield chunks


async def _chunks(
    consumer: AIOKafkaConsumer | None, wanted: dict[TopicPartition, Range], first_only: bool
) -> AsyncGenerator[list[ConsumerRecord], None]:
    if consumer is None:
        return
    consumer.assign(list(wanted))
    for partition, (first, _) in wanted.items():
        consumer.seek(partition, first)
    reached = dict.fromkeys(wanted, -1)
    moved_at = time.monotonic()
    while wanted:
        chunk: list[ConsumerRecord] = []
        for partition, records in (
            await consumer.getmany(*wanted, timeout_ms=_POLL_MS, max_records=_CHUNK_RECORDS)
        ).items():
            inside = [record for record in records if record.offset < wanted[partition][1]]
            if first_only and inside:
                del inside[1:], wanted[partition]
                consumer.pause(partition)
            chunk += inside
        if chunk:
            yield chunk
        for partition, (_, end) in list(wanted.items()):
            position = await consumer.position(partition)
            if position != reached[partition]:
                reached[partition], moved_at = position, time.monotonic()
            if position >= end:
                del wanted[partition]
                consumer.pause(partition)
        if wanted and time.monotonic() - moved_at > STALL_SECONDS:
            raise LogReadStalled(_not_come(wanted, reached))


def _not_come(wanted: Mapping[TopicPartition, Range], reached: Mapping[TopicPartition, int]) -> str:
    places = ", ".join(
        f"{partition.topic}:{partition.partition} up to offset {end}, which was read up to {reached[partition]}"
        for partition, (_, end) in sorted(wanted.items())
    )
    return (
        f"reading the log in {places} made no progress for {STALL_SECONDS:g} s: it ends there, so it is another log, or a "
        "transaction is open, or the broker does not answer; see `neuroweaver partitions list` and `neuroweaver doctor`"
    )


@asynccontextmanager
async def _consumer(cluster: Cluster, about: Collection[TopicPartition]) -> AsyncIterator[AIOKafkaConsumer]:
    """Yield a started consumer that has fetched the leaders of these partitions; otherwise its first request is retried 0.1
    s later."""
    survive_any_batch()
    consumer = AIOKafkaConsumer(
        **cluster.connection(),
        client_id="neuroweaver-log",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
    )
    try:
        await start(consumer, cluster)
        await asyncio.sleep(0)  # a task of the consumer that is stopped before it has begun raises CancelledError to us
        await consumer._client.set_topics({partition.topic for partition in about})
        yield consumer
    finally:
        await consumer.stop()


async def _partitions(cluster: Cluster, topics: list[str]) -> list[TopicPartition]:
    admin = AIOKafkaAdminClient(**cluster.connection(), client_id="neuroweaver-log")
    try:
        await start(admin, cluster)
        known = set(await admin.list_topics())
        if missing := [topic for topic in topics if topic not in known]:
            names = ", ".join(topic.name for topic in CATALOGUE)
            raise UnknownTopic(
                f"no topic {', '.join(map(repr, missing))} exists; the catalogue has {names}, and `neuroweaver topics "
                "apply` creates them"
            )
        described = await admin.describe_topics(topics)
        return [TopicPartition(topic["topic"], found["partition"]) for topic in described for found in topic["partitions"]]
    finally:
        await admin.close()
