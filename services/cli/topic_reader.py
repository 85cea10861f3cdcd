"""Anybody can look at the log: a topic's records as they lie there, readable JSON with their `ce_*` headers."""

import asyncio
import json

from aiokafka import ConsumerRecord

from schemas.json_text import NoJson, parse, storable
from schemas.reasons import Reason
from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel import log
from services.chassis.kernel.records import appended_at, name_shown
from services.cli.printable import printable
from services.cli.settings import CliSettings
from services.cli.stack import broker


def read(settings: CliSettings, topic: str, *, key: str | None, limit: int | None) -> list[ConsumerRecord]:
    """Read from the cluster that the settings name, the running stack's, or one started for this command.

    Raises UnknownTopic.
    """
    with broker(settings) as cluster:
        return asyncio.run(records_of(cluster, topic, key=key, limit=limit))


async def records_of(
    cluster: Cluster, topic: str, *, key: str | None = None, limit: int | None = None
) -> list[ConsumerRecord]:
    """Return the topic's records in the order of time, of all keys or one, at most the newest `limit`.

    Raises UnknownTopic.
    """
    found: list[ConsumerRecord] = []
    async with log.read(cluster, await log.bounds(cluster, [topic])) as chunks:
        async for chunk in chunks:
            found += [record for record in chunk if key is None or record.key == key.encode(errors="surrogateescape")]
    found.sort(key=lambda record: (record.timestamp, record.partition, record.offset))
    return found if limit is None else found[max(0, len(found) - limit) :]


def as_json(record: ConsumerRecord) -> str:
    """Return one record as one line of JSON."""
    return json.dumps(
        {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": _time(record),
            "key": _text(record.key),
            "headers": {name_shown(name): _text(value) for name, value in record.headers},
            "value": _value(record.value),
        },
        ensure_ascii=False,
    )


def as_text(record: ConsumerRecord) -> str:
    """Return one record as text: its position, its headers, its value as indented JSON."""
    lines = [f"{record.topic} [{record.partition}] @ {record.offset}  {_time(record)}  key {_text(record.key)}"]
    lines += [f"  {name_shown(name)}: {_text(value)}" for name, value in record.headers]
    value = _value(record.value)
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    return "\n".join([printable(line) for line in [*lines, *(f"  {line}" for line in shown.splitlines()), ""]])


def _time(record: ConsumerRecord) -> str:
    return appended_at(record).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode(errors="backslashreplace")


def _value(raw: bytes | None) -> object:
    """Return the JSON in `raw`, or its text if it is not JSON that can be shown."""
    faults: list[Reason] = []
    try:
        parsed = parse(b"null" if raw is None else raw)
        if not parsed.plain:
            storable(parsed.value, "", faults)
    except NoJson:
        return _text(raw)
    return _text(raw) if faults else parsed.value
