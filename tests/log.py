"""What is in the log: every record of a topic, and the events among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.envelope import Event, Unreadable
from schemas.topics import EVENT_TYPES
from services.chassis.kafka.fetch.batches import survive_any_batch
from services.chassis.kernel.records import event_in


@dataclass(slots=True)
class HeldRecord:
    """A record as a consumer would receive it, made without a broker."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


async def read_all(kafka: str, topic: str) -> list[Any]:
    """Return every record of a topic at this time."""
    survive_any_batch()
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        await consumer._client._wait_on_metadata(topic)
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        records: list[Any] = []
        for partition in partitions:
            consumer.seek(partition, 0)
        while [p for p in partitions if await consumer.position(p) < ends[p]]:
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                records += batch
        return records
    finally:
        await consumer.stop()


async def read_events(kafka: str, topic: str) -> list[Event]:
    """Return every event of a topic at this time, in order per partition, without unreadable records."""
    return [event for record in await read_all(kafka, topic) if (event := event_of(record))]


def event_of(record: Any) -> Event | None:
    """Return the event in a record; None for garbage that tests of dead letters wrote, and for an unknown type."""
    try:
        event = event_in(record, EVENT_TYPES)
    except Unreadable:
        return None
    return event if isinstance(event, Event) else None
