"""Publishes events to Kafka without the outbox: requests of the HTTP routes (acks=all) and progress (lossy)."""

import asyncio
import time
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.base import EventData
from schemas.bounds import RECORD_BYTES
from schemas.envelope import Event, encode
from schemas.ids import child_traceparent, new_id
from schemas.topics import TOPIC_OF, aggregate_key
from services.chassis.kafka.cluster import NOTICED_MS, Cluster
from services.chassis.kafka.pacing import pace
from services.chassis.kafka.reach import obstacle, start
from services.chassis.process.logging import get_logger
from services.chassis.process.repeated_failures import FailureLog
from services.chassis.process.transient import Backoff, described, wait_or_stop

_log = get_logger(__name__)
_PROBE_SECONDS = 5.0
_LOOK_SECONDS = 0.5
_LOSSY_IN_FLIGHT = 1000
BATCH_BYTES = 256 * 1024
"""The most records that are sent together."""


class BrokerAway(Exception):
    """Kafka did not acknowledge in time; whether the event will appear is unknown, so sending it again must be harmless."""


def outside_event(
    source: str,
    data: EventData,
    *,
    correlation_id: str,
    causation_id: str | None = None,
    traceparent: str | None = None,
    subject: str = "",
) -> Event:
    """Make an unnumbered event now: a fact that no aggregate of this service decided."""
    return Event(
        id=new_id(),
        source=source,
        subject=subject,
        time=datetime.now(UTC),
        data=data,
        sequence=None,
        correlation_id=correlation_id,
        causation_id=causation_id,
        traceparent=child_traceparent(traceparent),
    )


def make_producer(cluster: Cluster, client_id: str, *, idempotent: bool = True) -> AIOKafkaProducer:
    """Return a producer with acks=all that retries with pauses; an idempotent one keeps order per partition and awaits the
    broker.

    After a record that the broker refuses for good, its sequence numbers have a gap, and it cannot be used for that
    partition.
    """
    producer = AIOKafkaProducer(
        **cluster.connection(),
        client_id=client_id,
        enable_idempotence=idempotent,
        acks="all",
        request_timeout_ms=10_000,
        max_batch_size=BATCH_BYTES,
        max_request_size=RECORD_BYTES,
        metadata_max_age_ms=NOTICED_MS,
    )
    pace(producer.client)
    return producer


class Publisher:
    """One producer of a service; `run` keeps it connected and notes whether the broker answers."""

    def __init__(self, cluster: Cluster, client_id: str) -> None:
        self._cluster, self._client_id = cluster, client_id
        self._producer: AIOKafkaProducer | None = None
        self._lossy = 0
        self._spoiled = False
        """Whether the broker refused a record for good: after the gap in the sequence the partition accepts no other."""
        self.last_contact: float | None = None
        """Monotonic time at which the broker last answered; None before the first answer."""
        self.trouble = ""
        """Why the broker does not answer, if known; empty while it does."""

    async def run(self, stop: asyncio.Event) -> None:
        """Connect, then request the broker's metadata every few seconds, until `stop`."""
        backoff, failures = Backoff(), FailureLog(_log)
        while not stop.is_set():
            producer = make_producer(self._cluster, self._client_id)
            try:
                await start(producer, self._cluster)
            except (KafkaError, OSError) as error:
                await producer.stop()
                self.trouble = described(error)
                failures.failed("publisher: the broker is unreachable", error)
                await wait_or_stop(stop, backoff.next())
                continue
            self._producer, self._spoiled = producer, False
            failures.recovered()
            try:
                while not (stop.is_set() or self._spoiled):
                    if await producer.client.force_metadata_update():
                        self.last_contact, self.trouble = time.monotonic(), ""
                    else:
                        self.trouble = await obstacle(self._cluster) or ""
                    looks = round(_PROBE_SECONDS / _LOOK_SECONDS)
                    while looks and not self._spoiled and not await wait_or_stop(stop, _LOOK_SECONDS):
                        looks -= 1
            finally:
                self._producer = None
                await stop_quietly(producer)

    async def publish(self, event: Event, timeout: float = 5.0) -> None:
        """Publish one event and wait for the acknowledgement of all in-sync replicas. Raises BrokerAway after `timeout`."""
        if self._producer is None:
            raise BrokerAway(f"Kafka at {self._cluster} is not connected")
        value, headers = encode(event)
        key = aggregate_key(event.data).encode()
        try:
            async with asyncio.timeout(timeout):
                acknowledged = await self._producer.send(TOPIC_OF[event.type].name, value, key, headers=headers)
                await acknowledged
        except (TimeoutError, KafkaError, OSError) as error:
            self._spoiled = self._spoiled or (isinstance(error, KafkaError) and not error.retriable)
            raise BrokerAway(
                f"Kafka at {self._cluster} did not acknowledge within {timeout:g} s: {described(error)}"
            ) from error
        self.last_contact = time.monotonic()

    def publish_lossy(self, event: Event) -> None:
        """Send without waiting; the event is dropped if the broker is unreachable or too many are already waiting."""
        if self._producer is None or self._lossy >= _LOSSY_IN_FLIGHT:
            return
        self._lossy += 1
        task = asyncio.ensure_future(self.publish(event, timeout=30.0))
        task.add_done_callback(self._lossy_done)

    def _lossy_done(self, task: "asyncio.Task[None]") -> None:
        self._lossy -= 1
        if not task.cancelled() and (error := task.exception()):
            _log.debug("progress dropped", error=described(error))


async def stop_quietly(producer: AIOKafkaProducer, seconds: float = 5.0) -> None:
    """Stop a producer, but wait at most `seconds` for acknowledgements of an absent broker."""
    try:
        async with asyncio.timeout(seconds):
            await producer.stop()
    except (TimeoutError, KafkaError, OSError) as error:
        _log.warning("producer did not stop in time", error=described(error))
