"""Configures FastStream to pass raw records in polls only, without parsing and without acknowledging.

FastStream's parser reads headers and bodies outside the handler, where an error loses the batch; its acknowledgement commits
every assigned partition. So records pass through unchanged, and the consumer manages positions and offsets.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from aiokafka import ConsumerRebalanceListener, TopicPartition
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaMessage
from faststream.kafka.subscriber.usecase import BatchSubscriber
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from schemas.topics import Topic
from services.chassis.kafka.cluster import NOTICED_MS, Mechanism, Security
from services.chassis.kafka.fetch.batches import survive_any_batch
from services.chassis.kafka.group import group_of
from services.chassis.kernel.consuming.client import Client
from services.chassis.kernel.records import Record
from services.chassis.process.logging import get_logger
from services.chassis.settings import ServiceSettings

_SASL: dict[Mechanism, type[SASLPlaintext | SASLScram256 | SASLScram512]] = {
    "PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512,
}  # fmt: skip

_log = get_logger(__name__)
_BEYOND_SESSION_MS = 5_000
"""A request times out this long after the session time-out, since a request to join the group may last a session."""
_PAUSE_SECONDS = 1.0


class Subscribed(ConsumerRebalanceListener, ABC):  # type: ignore[misc]
    """Receives the callbacks of a subscription: polls, lost records, and assignment and revocation of partitions."""

    @abstractmethod
    async def handle(self, records: tuple[Record, ...]) -> None:
        """Handle the records of one poll; polls are handled one at a time."""

    @abstractmethod
    def lost(self) -> None:
        """A poll failed: the client may have skipped records of any partition without returning them."""


def subscribe(
    settings: ServiceSettings,
    service: str,
    client_id: str,
    topics: Sequence[Topic],
    source: str,
    subscribed: Subscribed,
) -> tuple[KafkaBroker, BatchSubscriber]:
    """Builds a broker, not yet started, whose one subscriber passes each poll to `subscribed`, one at a time. `source`: the CloudEvents
    source of the service's own events."""
    survive_any_batch()
    broker = KafkaBroker(
        settings.cluster.address,
        security=_security(settings.cluster.security),
        client_id=client_id,
        consumer_only=True,
        allow_auto_create_topics=False,
        graceful_timeout=settings.drain_seconds,
        metadata_max_age_ms=NOTICED_MS,
        request_timeout_ms=settings.session_timeout_ms + _BEYOND_SESSION_MS,
        apply_types=False,
        logger=logging.getLogger("faststream"),
    )
    _build_own(broker, source, subscribed.lost)
    subscriber = broker.subscriber(
        *(topic.name for topic in topics),
        batch=True,
        group_id=group_of(service),
        group_instance_id=f"{service}-{settings.instance}" if settings.instance else None,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_records=settings.batch_records,
        batch_timeout_ms=settings.batch_timeout_ms,
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=settings.session_timeout_ms // 10,  # a heartbeat's answer tells the member of a rebalance
        listener=subscribed,
        ack_policy=AckPolicy.MANUAL,
        parser=_raw,
        decoder=_records,
    )

    @subscriber
    async def poll(records: Any) -> None:  # Any, since FastStream builds a pydantic model from a handler's annotations
        try:
            await subscribed.handle(records)
        except Exception:  # FastStream would swallow it; the next poll finds a gap and seeks again
            _log.exception("a poll could not be handled; it is read again", records=len(records))
            await asyncio.sleep(_PAUSE_SECONDS)

    return broker, subscriber


def _build_own(broker: KafkaBroker, source: str, lost: Callable[[], None]) -> None:
    """Make the broker build `Client` consumers. FastStream resets the class to aiokafka's own whenever it connects."""
    config: Any = broker.config.broker_config
    connect = config.connect

    async def and_build_own(**options: Any) -> None:
        await connect(**options)
        config.builder = partial(Client, source, lost, **config.builder.keywords)

    config.connect = and_build_own


def _security(security: Security) -> BaseSecurity:
    """Return the security settings as FastStream's objects."""
    context, encrypted = security.context(), security.encrypted
    if not security.authenticated:
        return BaseSecurity(context, encrypted)
    return _SASL[security.mechanism](security.username or "", security.password or "", context, encrypted)


async def _raw(message: tuple[Record, ...]) -> KafkaMessage:
    return KafkaMessage(body=b"", raw_message=message, consumer=_NO_CONSUMER)


async def _records(message: KafkaMessage) -> tuple[Record, ...]:
    records: tuple[Record, ...] = message.raw_message
    return records


class _NoConsumer:
    """A stand-in for the consumer that FastStream's messages need to acknowledge; ours are never acknowledged through it."""

    async def commit(self) -> None:
        """Does nothing: the database commits positions, and the consumer's upkeep commits offsets."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Does nothing: the consumer seeks itself."""


_NO_CONSUMER = _NoConsumer()
