"""Why: own events leave the outbox for Kafka in order per key, each until it is acknowledged; dead letters get their copy.

One relay per service is active, by an advisory lock on the connection that also reads and removes the rows: whoever lost
the connection can remove nothing. Order per partition is kept by the idempotent producer; a key whose record cannot be
sent stops, the others flow on. A crash between acknowledgement and removal sends a record twice: readers know it by its id.
"""

import asyncio
import base64
import json
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.topics import dead_letter_topic
from services.chassis import metrics, store
from services.chassis.cluster import Cluster
from services.chassis.health import Health
from services.chassis.logging import get_logger
from services.chassis.outgoing import Outgoing
from services.chassis.publisher import make_producer, stop_quietly
from services.chassis.records import name_of_kept, name_shown
from services.chassis.signals import Signals, Subscription
from services.chassis.surroundings import Backoff, is_surroundings, wait_or_stop
from services.chassis.tables import HEADER_COLUMNS

_log = get_logger(__name__)
_LOCK = 7_253_002
_ROWS = 1000
_POLL_SECONDS = 1.0
_STANDBY_SECONDS = 2.0
_PATIENCE_SECONDS = 5.0
_DEAD_LETTER_SECONDS = 30.0

_TAKE_LOCK = text("SELECT pg_try_advisory_lock(:lock)")
_READ = text(
    f"""SELECT position, aggregatetype, aggregateid, payload, {", ".join(HEADER_COLUMNS)} FROM outbox
        WHERE position > :after AND NOT (aggregateid = ANY(CAST(:blocked AS text[]))) ORDER BY position LIMIT {_ROWS}"""
)
_REMOVE = text("DELETE FROM outbox WHERE position = ANY(CAST(:positions AS bigint[]))")
_WAITING = text("SELECT count(*), min(ce_time) FROM outbox")
_READ_DEAD = text(
    """SELECT topic, partition, "offset", key, value, headers, error, attempts, appended_at FROM dead_letter
       WHERE NOT published ORDER BY recorded_at LIMIT 100"""
)
_MARK_DEAD = text(
    'UPDATE dead_letter SET published = true WHERE topic = :topic AND partition = :partition AND "offset" = :offset'
)


@dataclass
class _Window:
    """Where the outbox is read from: walking over what was removed costs more with each row until PostgreSQL cleans up.

    Once a second all of it is read, in between only what is newer than what was read a second ago. A transaction that
    takes longer than that may commit rows below; they wait for the next whole look. No order is lost: an aggregate's rows are
    written under its lock, so a later one is never seen before an earlier one.
    """

    _whole_at: float = 0.0
    _floor: int = 0
    _mark: int = 0
    _highest: int = 0

    def start(self, now: float) -> int:
        """The position after which to read at `now`, seconds; 0 for all."""
        if now < self._whole_at:
            return self._floor
        self._whole_at = now + _POLL_SECONDS
        self._floor, self._mark = self._mark, self._highest
        return 0

    def seen(self, position: int) -> None:
        """Rows were read up to here; they are sent and gone, or their keys are blocked."""
        self._highest = max(self._highest, position)


@dataclass
class Relay:
    """The relay of one service."""

    cluster: Cluster
    service: str
    engine: AsyncEngine
    signals: Signals
    health: Health
    blocked: dict[str, str] = field(default_factory=dict)
    """Keys whose next event could not be sent, with the reason."""
    _dead_letters_after: float = 0.0
    _upkeep_after: float = 0.0
    _window: _Window = field(default_factory=_Window)

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until `stop`; what is committed by then is still sent, as far as the broker answers."""
        backoff = Backoff()
        with self.signals.subscribe(store.OUTBOX_CHANNEL) as woken:
            while not stop.is_set():
                try:
                    await self._hold_lock(stop, woken)
                    backoff.reset()
                except Exception as error:
                    log = _log.warning if is_surroundings(error) else _log.exception
                    log("relay interrupted", error=str(error)[:500])
                    self.health.report("relaying", False, f"{type(error).__name__}: {error}"[:500])
                    await wait_or_stop(stop, backoff.next())

    async def _hold_lock(self, stop: asyncio.Event, woken: Subscription) -> None:
        async with self.engine.connect() as pooled:
            connection = await pooled.execution_options(isolation_level="AUTOCOMMIT")
            while not await connection.scalar(_TAKE_LOCK, {"lock": _LOCK}):
                self.health.report("relaying", True, "another process relays")
                if await wait_or_stop(stop, _STANDBY_SECONDS):
                    return
            try:
                await self._relay(connection, stop, woken)
            finally:
                await pooled.invalidate()  # the lock goes with the session

    async def _relay(self, connection: AsyncConnection, stop: asyncio.Event, woken: Subscription) -> None:
        producer = make_producer(self.cluster, f"neuroweaver-{self.service}-relay")
        self._window = _Window()
        try:
            await producer.start()
            self.health.report("relaying", True)
            while True:
                if last := stop.is_set():
                    self._window = _Window()  # all that is committed by now
                await self._drain(connection, producer, stop)
                if last:
                    return
                await woken.wait(_POLL_SECONDS)
        finally:
            await stop_quietly(producer)

    async def _drain(self, connection: AsyncConnection, producer: AIOKafkaProducer, stop: asyncio.Event) -> None:
        """Send all that is waiting; keys that fail are left out until the next second."""
        clock = asyncio.get_running_loop().time
        after = self._window.start(clock())
        blocked = dict(self.blocked) if after else {}
        while rows := (await connection.execute(_READ, {"after": after, "blocked": list(blocked)})).all():
            await self._send_rows(connection, producer, rows, blocked, stop)
            self._window.seen(rows[-1].position)
            if len(rows) < _ROWS:  # what is committed from now on wakes the relay again
                break
            after = self._window.start(clock())
        self.blocked = blocked
        reason = "; ".join(f"{key}: {why}" for key, why in blocked.items())
        self.health.report("relaying", not blocked, f"cannot be sent: {reason}"[:500])
        if clock() >= self._upkeep_after:
            self._upkeep_after = clock() + _POLL_SECONDS
            await self._upkeep(connection, producer)

    async def _upkeep(self, connection: AsyncConnection, producer: AIOKafkaProducer) -> None:
        """What need not be done with every event: copies of dead letters, gauges."""
        if asyncio.get_running_loop().time() >= self._dead_letters_after:
            await self._copy_dead_letters(connection, producer)
        waiting, oldest = (await connection.execute(_WAITING)).one()
        metrics.OUTBOX_ROWS.labels(self.service).set(waiting)
        age = (datetime.now(UTC) - datetime.fromisoformat(oldest)).total_seconds() if oldest else 0.0
        metrics.OUTBOX_SECONDS.labels(self.service).set(max(0.0, age))

    async def _send_rows(
        self,
        connection: AsyncConnection,
        producer: AIOKafkaProducer,
        rows: Sequence[Row[Any]],
        blocked: dict[str, str],
        stop: asyncio.Event,
    ) -> None:
        outgoing = Outgoing(producer)
        for row in rows:
            if row.aggregateid in blocked:
                continue
            try:
                await outgoing.add(row)
            except MessageSizeTooLargeError as error:
                self._block(blocked, row.aggregateid, error)
        await outgoing.finish()
        results = await self._acknowledged([acknowledged for _, acknowledged in outgoing.batches], stop)
        done: list[int] = []
        undone: set[str] = set()
        failed: BaseException | None = None
        for (batch, _), result in zip(outgoing.batches, results, strict=True):
            if isinstance(result, BaseException):
                undone |= {row.aggregateid for row in batch}
                failed = result
            else:
                done += [row.position for row in batch if row.aggregateid not in undone]
        if done:
            await connection.execute(_REMOVE, {"positions": done})
            metrics.PUBLISHED.labels(self.service).inc(len(done))
        if failed is not None:  # the producer's numbers have a gap now: begin with a new one
            raise failed

    async def _acknowledged(self, futures: Sequence[Awaitable[object]], stop: asyncio.Event) -> list[object]:
        """What became of each batch. An absent broker is waited for: the idempotent producer keeps trying, in order."""
        results = asyncio.gather(*futures, return_exceptions=True)
        while not (await asyncio.wait([results], timeout=_PATIENCE_SECONDS))[0]:
            self.health.report("relaying", False, "Kafka does not acknowledge")
            if stop.is_set():
                results.cancel()
                raise TimeoutError("Kafka did not acknowledge before the end")
        return list(results.result())

    def _block(self, blocked: dict[str, str], key: str, error: BaseException) -> None:
        blocked[key] = f"{type(error).__name__}: {error}"[:200]
        if self.blocked.get(key) != blocked[key]:
            _log.error("an event cannot be sent; its key waits", key=key, error=blocked[key])

    async def _copy_dead_letters(self, connection: AsyncConnection, producer: AIOKafkaProducer) -> None:
        """The rows are the dead letters; a copy that cannot be sent must not hold up events, so it waits a while."""
        try:
            while dead := (await connection.execute(_READ_DEAD)).all():
                await self._send_dead(connection, producer, dead)
        except (TimeoutError, KafkaError) as error:
            _log.warning("dead letters are not copied to their topic yet", error=f"{type(error).__name__}: {error}")
            self._dead_letters_after = asyncio.get_running_loop().time() + _DEAD_LETTER_SECONDS

    async def _send_dead(self, connection: AsyncConnection, producer: AIOKafkaProducer, rows: Sequence[Row[Any]]) -> None:
        topic = dead_letter_topic(self.service).name
        for row in rows:
            headers = [
                (name_shown(name_of_kept(name)), base64.b64decode(value or "")) for name, value in _pairs(row.headers)
            ]
            headers += [
                ("dlq_error", row.error.encode()),
                ("dlq_topic", row.topic.encode()),
                ("dlq_partition", str(row.partition).encode()),
                ("dlq_offset", str(row.offset).encode()),
                ("dlq_attempts", str(row.attempts).encode()),
                ("dlq_appended_at", row.appended_at.astimezone(UTC).isoformat().encode()),
            ]
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await producer.send_and_wait(topic, row.value if row.value is not None else b"", row.key, headers=headers)
            await connection.execute(_MARK_DEAD, {"topic": row.topic, "partition": row.partition, "offset": row.offset})


def _pairs(headers: object) -> list[tuple[str, str | None]]:
    return json.loads(headers) if isinstance(headers, str) else headers  # type: ignore[return-value]
