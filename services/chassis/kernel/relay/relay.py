"""Relays own events from the outbox to Kafka, in order per key; a row is removed when the broker has acknowledged it.

One relay per service is active, by an advisory lock on the session that also reads and removes the rows (`exclusive`): a process
that lost the session can remove nothing, and a frozen process loses it. The idempotent producer keeps the order per partition; a
key whose record cannot be sent is blocked, the others are sent. A crash between acknowledgement and removal sends a record twice:
readers recognise it by its id.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.bounds import RECORD_BYTES
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.publisher import make_producer, stop_quietly
from services.chassis.kafka.reach import start
from services.chassis.kafka.topics import largest_record
from services.chassis.kernel import metrics, store
from services.chassis.kernel.deadletters.copies import Copies
from services.chassis.kernel.relay import statements
from services.chassis.kernel.relay.outbox import OutboxBacklog, OutboxCursor
from services.chassis.kernel.relay.outgoing import Outgoing, OutgoingBatch, RecordTooLarge
from services.chassis.postgres.exclusive import Exclusive, exclusive
from services.chassis.postgres.notifications import Notifications, Subscription
from services.chassis.process.health import Health
from services.chassis.process.logging import get_logger
from services.chassis.process.repeated_failures import FailureLog
from services.chassis.process.transient import Backoff, described, wait_or_stop

_log = get_logger(__name__)
RELAY_LOCK = 7_253_002
_POLL_SECONDS = 1.0
_STANDBY_SECONDS = 1.0
_ACKNOWLEDGE_SECONDS = 5.0
_LIMIT_SECONDS = 30.0
"""How often the limit of a topic that is smaller than ours is read again."""


@dataclass
class Relay:
    """The relay of one service."""

    cluster: Cluster
    service: str
    engine: AsyncEngine
    notifications: Notifications
    health: Health
    blocked: dict[str, str] = field(default_factory=dict)
    """Keys whose next event could not be sent, with the reason."""
    limits: dict[str, int] = field(default_factory=dict)
    """Largest batch in bytes, by topic, where the broker's limit is smaller than ours."""
    _limits_after: float = 0.0
    _upkeep_after: float = 0.0
    _cursor: OutboxCursor = field(default_factory=lambda: OutboxCursor(_POLL_SECONDS))

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until `stop`; rows committed by then are still sent, as long as the broker answers."""
        backoff, failures = Backoff(), FailureLog(_log)
        with self.notifications.subscribe(store.OUTBOX_CHANNEL) as woken:
            while not stop.is_set():
                try:
                    async with exclusive(self.engine) as session:
                        if await self._await_turn(session, stop):
                            await self._relay(session, stop, woken)
                    backoff.reset()
                except Exception as error:
                    failures.failed("relay interrupted", error, service=self.service)
                    self.health.report("relaying", False, described(error))
                    await wait_or_stop(stop, backoff.next())

    async def _await_turn(self, session: Exclusive, stop: asyncio.Event) -> bool:
        """Wait for the lock, and report meanwhile whether its holder relays; False if `stop` is set first."""
        before: OutboxBacklog | None = None
        while not await session.take(RELAY_LOCK):
            waiting = await self._measure(session)
            reason = waiting.overdue(before)
            self.health.report("relaying", reason is None, reason or "another process relays")
            self.health.report("copying", True, "another process copies")
            before = waiting
            if await wait_or_stop(stop, _STANDBY_SECONDS):
                return False
        return True

    async def _relay(self, session: Exclusive, stop: asyncio.Event, woken: Subscription) -> None:
        copies = Copies(self.cluster, self.service, self.engine, self.health)
        ended = asyncio.Event()
        copying = asyncio.create_task(copies.run(ended))
        try:
            while not await self._relay_with_producer(session, stop, woken):
                pass
        finally:
            ended.set()
            await copying

    async def _relay_with_producer(self, session: Exclusive, stop: asyncio.Event, woken: Subscription) -> bool:
        """Relay until `stop`; False if a batch was too large for its topic, so that a new producer must send smaller ones."""
        producer = make_producer(self.cluster, f"neuroweaver-{self.service}-relay")
        self._cursor = OutboxCursor(_POLL_SECONDS)
        try:
            await start(producer, self.cluster)
            self.health.report("relaying", True)
            while True:
                if last := stop.is_set():
                    self._cursor = OutboxCursor(_POLL_SECONDS)  # all that is committed by now
                await self._drain(session, producer, stop)
                if last:
                    return True
                await woken.wait(_POLL_SECONDS)
        except MessageSizeTooLargeError:
            return False
        finally:
            await stop_quietly(producer)

    async def _drain(self, session: Exclusive, producer: AIOKafkaProducer, stop: asyncio.Event) -> None:
        """Send all waiting rows; keys that fail are left out until the next second."""
        clock = asyncio.get_running_loop().time
        after = await self._start(session)
        blocked = dict(self.blocked) if after else {}
        rows = (await session.execute(statements.READ, {"after": after, "blocked": list(blocked)})).all()
        while rows:
            sent = await self._send_rows(session, producer, rows, blocked, stop)
            self._cursor.seen(rows[-1].position, more=len(rows) == statements.ROWS)
            if len(rows) < statements.ROWS and self._cursor.is_due(clock()):
                await session.execute(statements.REMOVE, {"positions": sent})
                break  # what was committed meanwhile wakes the relay again
            after = await self._start(session)
            values = {"after": after, "blocked": list(blocked), "positions": sent}
            rows = (await session.execute(statements.REMOVE_AND_READ, values)).all()
        self.blocked = blocked
        reason = "; ".join(f"{key}: {why}" for key, why in blocked.items())
        self.health.report("relaying", not blocked, f"cannot be sent: {reason}"[:500])
        if clock() >= self._upkeep_after:
            self._upkeep_after = clock() + _POLL_SECONDS
            await self._measure(session)
            await self._ask_limits_again()

    async def _start(self, session: Exclusive) -> int:
        """The position after which to read now."""
        now = asyncio.get_running_loop().time()
        if not self._cursor.is_due(now):
            return self._cursor.floor
        snapshot = (await session.execute(statements.SNAPSHOT)).one()
        return self._cursor.start_whole(now, snapshot.xmin, snapshot.xmax)

    async def _measure(self, session: Exclusive) -> OutboxBacklog:
        found = (await session.execute(statements.WAITING)).mappings().one()
        waiting = OutboxBacklog(found["rows"], found["first"], max(0.0, float(found["seconds"] or 0.0)))
        metrics.OUTBOX_ROWS.labels(self.service).set(waiting.rows)
        metrics.OUTBOX_SECONDS.labels(self.service).set(waiting.seconds)
        return waiting

    async def _send_rows(
        self,
        session: Exclusive,
        producer: AIOKafkaProducer,
        rows: Sequence[Row[Any]],
        blocked: dict[str, str],
        stop: asyncio.Event,
    ) -> list[int]:
        """Send `rows`; returns the positions of the acknowledged ones, which are to be removed."""
        sent: list[int] = []
        try:
            while rows:
                outgoing, left = Outgoing(producer, self.limits), list[Row[Any]]()
                for row in rows:
                    if row.aggregateid in blocked:
                        continue
                    try:
                        if not await outgoing.add(row):
                            left.append(row)
                    except RecordTooLarge as error:
                        self._block(blocked, row.aggregateid, error)
                await outgoing.finish()
                await self._conclude(outgoing, sent, stop)
                rows = left
        except Exception:
            await session.execute(statements.REMOVE, {"positions": sent})
            raise
        return sent

    async def _conclude(self, outgoing: Outgoing, sent: list[int], stop: asyncio.Event) -> None:
        """Add the acknowledged rows to `sent`. Raises the error of a refused batch: the producer's sequence numbers have a gap then."""
        results = await self._acknowledged([acknowledged for _, acknowledged in outgoing.batches], stop)
        failed: BaseException | None = None
        for (batch, _), result in zip(outgoing.batches, results, strict=True):
            if not isinstance(result, BaseException):
                sent += [row.position for row in batch.rows]
                metrics.PUBLISHED.labels(self.service).inc(len(batch.rows))
                continue
            failed = result
            if isinstance(result, MessageSizeTooLargeError):
                await self._learn_limit(batch)
        if failed is not None:
            raise failed

    async def _acknowledged(self, futures: Sequence[Awaitable[object]], stop: asyncio.Event) -> list[object]:
        """The result of each batch. It waits for an absent broker: the idempotent producer keeps retrying, in order."""
        results = asyncio.gather(*futures, return_exceptions=True)
        while not (await asyncio.wait([results], timeout=_ACKNOWLEDGE_SECONDS))[0]:
            self.health.report("relaying", False, "Kafka does not acknowledge")
            if stop.is_set():
                results.cancel()
                raise TimeoutError("Kafka did not acknowledge before the end")
        return list(results.result())

    def _block(self, blocked: dict[str, str], key: str, error: RecordTooLarge) -> None:
        blocked[key] = str(error)
        if self.blocked.get(key) != blocked[key]:
            _log.error(
                "an event cannot be sent; later events of its key wait", service=self.service, key=key, error=blocked[key]
            )

    async def _learn_limit(self, batch: OutgoingBatch) -> None:
        """Send smaller batches after one was refused: of the topic's limit or, where that is unknown, of half the size."""
        topic, refused = batch.topic, batch.bytes
        known = await largest_record(self.cluster, topic)
        smaller = refused // 2 if len(batch.rows) > 1 else refused - 1
        self.limits[topic] = known if known is not None and known < refused else smaller
        self._limits_after = asyncio.get_running_loop().time() + _LIMIT_SECONDS
        _log.warning(
            "a batch was too large for its topic; smaller ones are sent", service=self.service, topic=topic,
            refused_bytes=refused, max_message_bytes=known, batch_bytes=self.limits[topic],
        )  # fmt: skip

    async def _ask_limits_again(self) -> None:
        """Read the limits of topics with smaller ones again. A topic whose limit is unknown is tried with our own limit."""
        if not self.limits or asyncio.get_running_loop().time() < self._limits_after:
            return
        self._limits_after = asyncio.get_running_loop().time() + _LIMIT_SECONDS
        for topic in list(self.limits):
            known = await largest_record(self.cluster, topic)
            if known is None or known >= RECORD_BYTES:
                del self.limits[topic]
            else:
                self.limits[topic] = known
