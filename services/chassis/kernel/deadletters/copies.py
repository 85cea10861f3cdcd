"""Copies dead letters to their Kafka topic, apart from the relay, so that neither events nor other copies wait for one of them.

The database rows are the dead letters; a copy informs others. A record that is too large is copied without its value, with size
and digest instead, then also without headers, then also without key. What cannot be copied is reported and retried.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.bounds import RECORD_BYTES
from schemas.topics import dead_letter_topic
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.publisher import make_producer, stop_quietly
from services.chassis.kafka.reach import start
from services.chassis.kernel import metrics
from services.chassis.kernel.deadletters import statements
from services.chassis.kernel.deadletters.conversion import headers_of
from services.chassis.kernel.records import RecordId, name_shown, named
from services.chassis.process.health import Health
from services.chassis.process.logging import get_logger
from services.chassis.process.repeated_failures import FailureLog
from services.chassis.process.transient import described, wait_or_stop

_log = get_logger(__name__)
_POLL_SECONDS = 1.0
_AWAY_SECONDS = 5.0
_AGAIN_SECONDS = 60.0
"""A copy that the broker refused permanently is retried after this time, since an operator may have raised the limit."""
_ANSWER_SECONDS = 15.0
_OVERHEAD_BYTES = 512
_ERROR_CHARACTERS = 4000
_FORMS = ("whole", "without value", "without headers", "without key")
"""What each form leaves out, in addition to the forms before it."""

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Copy:
    """The Kafka record that copies a dead letter."""

    key: bytes | None
    value: bytes
    headers: Headers

    @property
    def size(self) -> int:
        """Upper bound of the record's size in bytes."""
        held = sum(len(name.encode()) + len(value) + 16 for name, value in self.headers)
        return len(self.key or b"") + len(self.value) + held + _OVERHEAD_BYTES


def forms_of(row: Row[Any]) -> list[Copy]:
    """Return the copies that may be sent of a row, the most complete first; only the last may exceed the size of a
    record."""
    forms = [copy for left_out in range(len(_FORMS)) if (copy := _form(row, left_out)) is not None]
    return [copy for copy in forms[:-1] if copy.size <= RECORD_BYTES] + forms[-1:]


def _form(row: Row[Any], left_out: int) -> Copy | None:
    """Return the copy without the first `left_out` of value, headers and key; None where a part that it needs was too large
    to be read."""
    parts = ("value", "headers", "key")
    if any(getattr(row, part) is None and getattr(row, f"{part}_bytes") is not None for part in parts[left_out:]):
        return None
    headers: Headers = []
    if left_out < 2:
        headers += [(name_shown(name), value or b"") for name, value in headers_of(row.headers)]
    headers += [
        ("dlq_error", row.error[:_ERROR_CHARACTERS].encode()),
        ("dlq_topic", row.topic.encode()),
        ("dlq_partition", str(row.partition).encode()),
        ("dlq_offset", str(row.offset).encode()),
        ("dlq_attempts", str(row.attempts).encode()),
        ("dlq_appended_at", row.appended_at.astimezone(UTC).isoformat().encode()),
    ]
    for part in parts[:left_out]:
        if (size := getattr(row, f"{part}_bytes")) is not None:
            headers += [
                (f"dlq_{part}_bytes", str(size).encode()),
                (f"dlq_{part}_sha256", getattr(row, f"{part}_sha256").encode()),
            ]
    value = b"" if left_out else row.value or b""
    return Copy(None if left_out == 3 else row.key, value, headers)


@dataclass
class Copies:
    """Copies the dead letters of one service, in the process whose relay is active."""

    cluster: Cluster
    service: str
    engine: AsyncEngine
    health: Health
    refused: dict[RecordId, str] = field(default_factory=dict)
    """Dead letters that could not be copied in any form, with the reason."""
    _again_at: float = 0.0

    @property
    def topic(self) -> str:
        """The topic of the copies."""
        return dead_letter_topic(self.service).name

    async def run(self, stop: asyncio.Event) -> None:
        """Copy until `stop`. Every failure is reported and retried."""
        failures = FailureLog(_log)
        while not stop.is_set():
            producer = make_producer(self.cluster, f"neuroweaver-{self.service}-dead-letters", idempotent=False)
            try:
                await start(producer, self.cluster)
                while not stop.is_set():
                    await self.look(producer, stop)
                    self._report()
                    failures.recovered()
                    await wait_or_stop(stop, _POLL_SECONDS)
            except Exception as error:
                failures.failed(
                    "dead letters could not be copied to their topic yet", error, service=self.service, topic=self.topic
                )
                self.health.report(
                    "copying", False, f"{self.topic} cannot be written: {described(error)}; {self._remedy()}"
                )
                await wait_or_stop(stop, _AWAY_SECONDS)
            finally:
                await stop_quietly(producer)

    async def look(self, producer: AIOKafkaProducer, stop: asyncio.Event) -> None:
        """Copy all that waits, in pages, with one value in memory at a time. Raises errors that concern all: broker, topic, database."""
        now = asyncio.get_running_loop().time()
        if now >= self._again_at:
            self.refused, self._again_at = {}, now + _AGAIN_SECONDS
        async with self.engine.connect() as pooled:
            connection = await pooled.execution_options(isolation_level="AUTOCOMMIT")
            after: dict[str, object] = {
                "recorded_at": datetime(1, 1, 2, tzinfo=UTC), "topic": "", "partition": 0, "offset": 0,
            }  # fmt: skip
            while not stop.is_set():
                page = (await connection.execute(statements.UNPUBLISHED, after)).all()
                for row in page:
                    record_id: RecordId = (row.topic, row.partition, row.offset)
                    if record_id not in self.refused and not stop.is_set():
                        await self._copy(connection, producer, record_id)
                if len(page) < statements.COPIES_PAGE:
                    break
                after = dict(page[-1]._mapping)
            waiting = await connection.scalar(statements.COUNT_UNPUBLISHED)
        metrics.DEAD_LETTERS_NOT_COPIED.labels(self.service).set(waiting or 0)

    async def _copy(self, connection: AsyncConnection, producer: AIOKafkaProducer, record_id: RecordId) -> None:
        at = dict(zip(("topic", "partition", "offset"), record_id, strict=True))
        row = (await connection.execute(statements.READ_FOR_COPY, at)).one_or_none()
        if row is None:  # retried, or copied, meanwhile
            return
        reason = await self._send(producer, forms_of(row))
        if reason is None:
            await connection.execute(statements.MARK_PUBLISHED, at)
            return
        self.refused[record_id] = reason
        _log.error(
            "a dead letter cannot be copied to its topic", service=self.service, topic=self.topic, record=named(record_id),
            error=reason,
        )  # fmt: skip

    async def _send(self, producer: AIOKafkaProducer, forms: Sequence[Copy]) -> str | None:
        """Send the first form that the broker accepts; returns why it accepts none, or None."""
        reason = ""
        for copy in forms:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await producer.send_and_wait(self.topic, copy.value, copy.key, headers=copy.headers)
                return None
            except MessageSizeTooLargeError:
                reason = f"{self.topic} refuses {copy.size} bytes (max.message.bytes)"
            except KafkaError as error:
                if error.retriable or isinstance(error, KafkaTimeoutError):  # the topic or the broker, not this copy
                    raise
                reason = described(error)
            except (ValueError, TypeError, AssertionError) as error:  # no client can write these headers
                reason = described(error)
        return reason

    def _report(self) -> None:
        said = "; ".join(f"{named(record_id)}: {reason}" for record_id, reason in list(self.refused.items())[:5])
        count = len(self.refused)
        self.health.report(
            "copying", not self.refused, f"{count} cannot be copied: {said}; {self._remedy()}" if count else ""
        )

    def _remedy(self) -> str:
        return (
            f"they are kept, see `neuroweaver dlq list {self.service}`; `neuroweaver topics plan` shows the state of "
            f"{self.topic}"
        )
