"""Relays own events from the outbox to Kafka, in order per key; a row is removed when the broker has acknowledged it.

One relay per service is active, by an advisory lock on the session that also reads and removes the rows (`exclusive`): a process
that lost the session can remove nothing, and a frozen process loses it. The idempotent producer keeps the order per partition; a
key whose record cannot be sent is blocked, the others are sent. A crash between acknowledgement and removal sends a record twice:
readers recognise it by its id.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
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
from services.chassis.kernel.transaction.handover import Handover, OutboxRow
from services.chassis.postgres.exclusive import Exclusive, exclusive
from services.chassis.postgres.locks import RELAY_LOCK
from services.chassis.postgres.notifications import Notifications, Subscription
from services.chassis.process.health import Health
from services.chassis.process.logging import get_logger
from services.chassis.process.repeated_failures import FailureLog
from services.chassis.process.transient import Backoff, described, wait_or_stop

_log = get_logger(__name__)
_POLL_SECONDS = 1.0
_STANDBY_SECONDS = 1.0
_REMOVE_SECONDS = 0.1
"""How long rows that Kafka has acknowledged may stay in the outbox, unless it is read before."""
_ACKNOWLEDGE_SECONDS = 5.0
_HANDED_OVER = "handed over"
"""Wakes the relay because of rows in `handover`, not because of others in the outbox."""
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
    handover: Handover = field(default_factory=Handover)
    """Where the transactions of this process pass what they have committed."""
    blocked: dict[str, str] = field(default_factory=dict)
    """Keys whose next event could not be sent, with the reason."""
    limits: dict[str, int] = field(default_factory=dict)
    """Largest batch in bytes, by topic, where the broker's limit is smaller than ours."""
    _limits_after: float = 0.0
    _upkeep_after: float = 0.0
    _told: bool = True
    """Whether rows may have been committed that were not handed over."""
    _cursor: OutboxCursor = field(default_factory=lambda: OutboxCursor(_POLL_SECONDS))
    _sent: list[int] = field(default_factory=list)
    """Positions of acknowledged rows that are still in the outbox."""
    _remove_after: float = 0.0

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
        self._cursor, self._sent = OutboxCursor(_POLL_SECONDS), []
        try:
            await start(producer, self.cluster)
            self.health.report("relaying", True)
            with self.handover.taken_by(lambda: woken.put(_HANDED_OVER)):
                while True:
                    if last := stop.is_set():
                        self._cursor = OutboxCursor(_POLL_SECONDS)  # all that is committed by now
                    await self._drain(session, producer, stop)
                    if last:
                        await self._remove(session)
                        return True
                    said = await woken.wait(max(0.0, self._remove_after - self._now()) if self._sent else _POLL_SECONDS)
                    self._told = any(payload != _HANDED_OVER for payload in said)
        except MessageSizeTooLargeError:
            return False
        finally:
            await stop_quietly(producer)

    async def _drain(self, session: Exclusive, producer: AIOKafkaProducer, stop: asyncio.Event) -> None:
        """Send what was handed over, or all waiting rows; keys that fail are left out until the next second."""
        rows = None if self._told or self._cursor.is_due(self._now()) else self._handed_over()
        if rows is None:
            await self._drain_outbox(session, producer, stop)
        elif rows:
            blocked = dict(self.blocked)
            await self._send_rows(session, producer, rows, blocked, stop)
            self.blocked = blocked
        reason = "; ".join(f"{key}: {why}" for key, why in self.blocked.items())
        self.health.report("relaying", not self.blocked, f"cannot be sent: {reason}"[:500])
        if self._now() >= min(self._remove_after, self._upkeep_after):
            await self._remove(session)
        if self._now() >= self._upkeep_after:
            self._upkeep_after = self._now() + _POLL_SECONDS
            await self._measure(session)
            await self._ask_limits_again()

    async def _drain_outbox(self, session: Exclusive, producer: AIOKafkaProducer, stop: asyncio.Event) -> None:
        """Read and send all waiting rows. What is committed meanwhile wakes the relay again."""
        after = await self._start(session)
        blocked = dict(self.blocked) if after else {}
        while True:
            self.handover.take()  # these rows are committed, so that they are read
            rows = await self._read(session, after, list(blocked))
            more = len(rows) == statements.ROWS
            await self._send_rows(session, producer, rows, blocked, stop)
            self._cursor.seen([row.position for row in rows], more=more)
            if not more:
                break
            after = await self._start(session)
        self.blocked = blocked

    def _handed_over(self) -> Sequence[OutboxRow] | None:
        """The rows that were handed over, in order; None if the outbox has to be read."""
        groups = self.handover.take()
        if groups is None or not all(self._cursor.follow([row.position for row in group]) for group in groups):
            return None
        return [row for group in groups for row in group]

    async def _start(self, session: Exclusive) -> int:
        """The position after which to read now."""
        now = self._now()
        if not self._cursor.is_due(now):
            return self._cursor.floor
        snapshot = (await session.execute(statements.SNAPSHOT)).one()
        return self._cursor.start_whole(now, snapshot.xmin, snapshot.xmax)

    async def _read(self, session: Exclusive, after: int, blocked: Sequence[str]) -> Sequence[OutboxRow]:
        """Read the next rows, and remove those that were sent before."""
        values = {"after": after, "blocked": blocked}
        if self._sent:
            found = await session.execute(statements.REMOVE_AND_READ, {**values, "positions": self._sent})
        else:
            found = await session.execute(statements.READ, values)
        self._sent = []
        return [OutboxRow.read(row) for row in found.all()]

    async def _remove(self, session: Exclusive) -> None:
        """Remove the rows that were sent."""
        if self._sent:
            await session.execute(statements.REMOVE, {"positions": self._sent})
            self._sent = []

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

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
        rows: Sequence[OutboxRow],
        blocked: dict[str, str],
        stop: asyncio.Event,
    ) -> None:
        """Send `rows`, and note the acknowledged ones, which are to be removed."""
        try:
            while rows:
                outgoing, left = Outgoing(producer, self.limits), list[OutboxRow]()
                for row in rows:
                    if row.key in blocked:
                        continue
                    try:
                        if not await outgoing.add(row):
                            left.append(row)
                    except RecordTooLarge as error:
                        self._block(blocked, row.key, error)
                await outgoing.finish()
                await self._conclude(outgoing, stop)
                rows = left
        except Exception:
            await self._remove(session)
            raise

    async def _conclude(self, outgoing: Outgoing, stop: asyncio.Event) -> None:
        """Note the acknowledged rows. Raises the error of a refused batch: the producer's sequence numbers have a gap then."""
        results = await self._acknowledged([acknowledged for _, acknowledged in outgoing.batches], stop)
        failed: BaseException | None = None
        for (batch, _), result in zip(outgoing.batches, results, strict=True):
            if not isinstance(result, BaseException):
                if not self._sent:
                    self._remove_after = self._now() + _REMOVE_SECONDS
                self._sent += [row.position for row in batch.rows]
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
