"""Why: anybody can look at the log: a topic's records as they lie there, readable JSON with their `ce_*` headers."""

import asyncio
import json

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from schemas.topics import CATALOGUE
from services.chassis.batch import appended_at
from services.cli.output import printable
from services.cli.settings import CliSettings
from services.cli.stack import servers


class UnknownTopic(ValueError):
    """The cluster has no such topic."""


def read(settings: CliSettings, topic: str, *, key: str | None, limit: int | None) -> list[ConsumerRecord]:
    """Of the cluster that is named, the running stack's, or that of servers started for it. Raises UnknownTopic."""
    if settings.kafka_bootstrap:
        return asyncio.run(records_of(settings.kafka_bootstrap, topic, key=key, limit=limit))
    with servers(settings) as (bootstrap, _):
        return asyncio.run(records_of(bootstrap, topic, key=key, limit=limit))


async def records_of(
    bootstrap: str, topic: str, *, key: str | None = None, limit: int | None = None
) -> list[ConsumerRecord]:
    """What the topic holds now, in the order of time: of all keys or one, at most the newest `limit`.

    Reads without a group, so that no consumer of ours is disturbed. Raises UnknownTopic.
    """
    partitions = await _partitions(bootstrap, topic)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, client_id="neuroweaver-topics-read", group_id=None, enable_auto_commit=False
    )
    await consumer.start()
    try:
        consumer.assign(partitions)
        begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        open_ = {partition for partition in partitions if begins[partition] < ends[partition]}
        await consumer.seek_to_beginning()
        found: list[ConsumerRecord] = []
        while open_:
            for partition, records in (await consumer.getmany(timeout_ms=500, max_records=5000)).items():
                found += [r for r in records if r.offset < ends[partition] and (key is None or r.key == key.encode())]
            open_ = {partition for partition in open_ if await consumer.position(partition) < ends[partition]}
    finally:
        await consumer.stop()
    found.sort(key=lambda record: (record.timestamp, record.partition, record.offset))
    return found if limit is None else found[max(0, len(found) - limit) :]


async def _partitions(bootstrap: str, topic: str) -> list[TopicPartition]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, client_id="neuroweaver-topics-read")
    await admin.start()
    try:
        if topic not in await admin.list_topics():
            names = ", ".join(known.name for known in CATALOGUE)
            raise UnknownTopic(f"no topic {topic!r} here; use one of {names}")
        (described,) = await admin.describe_topics([topic])
        return [TopicPartition(topic, found["partition"]) for found in described["partitions"]]
    finally:
        await admin.close()


def as_json(record: ConsumerRecord) -> str:
    """One record on one line, for programs."""
    return json.dumps(
        {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": _time(record),
            "key": _text(record.key),
            "headers": {name: _text(value) for name, value in record.headers},
            "value": _value(record.value),
        },
        ensure_ascii=False,
    )


def as_text(record: ConsumerRecord) -> str:
    """One record for people: where it lies, its headers, its value as indented JSON."""
    lines = [f"{record.topic} [{record.partition}] @ {record.offset}  {_time(record)}  key {_text(record.key)}"]
    lines += [f"  {name}: {_text(value)}" for name, value in record.headers]
    value = _value(record.value)
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    return "\n".join([printable(line) for line in [*lines, *(f"  {line}" for line in shown.splitlines()), ""]])


def _time(record: ConsumerRecord) -> str:
    return appended_at(record).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode(errors="backslashreplace")


def _value(raw: bytes | None) -> object:
    """The JSON in `raw`, or its text where it is none."""
    try:
        return json.loads(raw or b"null")
    except ValueError:
        return _text(raw)
