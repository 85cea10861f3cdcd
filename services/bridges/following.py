"""Follows the topic of models from its start to its end, again and again, and applies what is new to a mirror."""

import asyncio
from collections.abc import Callable

from aiokafka import ConsumerRecord

from schemas.envelope import Event, UnknownVersion, Unreadable
from schemas.topics import EVENT_TYPES, MODELS
from services.bridges.mirroring import Mirror
from services.bridges.mlflow_registry import Away
from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel import log
from services.chassis.kernel.records import Partition, event_in
from services.chassis.process.transient import wait_or_stop

_LOOK_SECONDS = 2.0
_RETRY_SECONDS = 5.0


async def follow(cluster: Cluster, mirror: Mirror, stop: asyncio.Event, say: Callable[[str], None]) -> None:
    """Mirror until `stop` is set. While MLflow is away nothing is lost: then the log is read again from its start.

    Raises Foreign, UnknownTopic and the broker's errors.
    """
    positions: dict[Partition, int] = {}
    trouble: str | None = None
    while not stop.is_set():
        try:
            await catch_up(cluster, mirror, positions)
            if trouble is not None:
                say("MLflow answers again")
            trouble = None
        except Away as away:
            if trouble is None:
                say(f"MLflow does not take what is mirrored: {away}; it is tried again")
            trouble = str(away)
            positions.clear()
            mirror.forget()
        await wait_or_stop(stop, _LOOK_SECONDS if trouble is None else _RETRY_SECONDS)


async def catch_up(cluster: Cluster, mirror: Mirror, positions: dict[Partition, int]) -> int:
    """Apply all records from `positions` to the present end, and return how many events were applied. Raises Away and Foreign."""
    spans = await log.bounds(cluster, [MODELS.name])
    for partition, (first, end) in spans.items():
        here = positions.get(partition, first)
        positions[partition] = here if first <= here <= end else first
    applied = 0
    async with log.read(
        cluster, {partition: (positions[partition], end) for partition, (_, end) in spans.items()}
    ) as chunks:
        async for chunk in chunks:
            for record in chunk:
                event = _event(record)
                if event is not None:
                    applied += await asyncio.to_thread(mirror.apply, event)
                positions[record.topic, record.partition] = record.offset + 1
    return applied


def _event(record: ConsumerRecord) -> Event | None:
    """Return the event in a record; None for one that no service could read either, or that a later release wrote."""
    try:
        found = event_in(record, EVENT_TYPES)
    except (Unreadable, UnknownVersion):
        return None
    return found if isinstance(found, Event) else None
