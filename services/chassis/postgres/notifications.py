"""Wakes loops at once through PostgreSQL LISTEN/NOTIFY; a lost notification only delays them until the next poll."""

import asyncio
from collections.abc import Container, Iterator
from contextlib import contextmanager

import asyncpg

from services.chassis.postgres import statements
from services.chassis.postgres.urls import parse
from services.chassis.process.logging import get_logger
from services.chassis.process.repeated_failures import FailureLog
from services.chassis.process.transient import Backoff, ReadsOnly, wait_or_stop

_log = get_logger(__name__)
_PAYLOADS = 10_000
_CHECK_SECONDS = 5.0


class Subscription:
    """Collects the payloads of one channel for one waiter; only those in `wanted` wake it. An empty payload means any."""

    def __init__(self, wanted: Container[str] | None = None) -> None:
        self._wanted = wanted
        self._payloads: dict[str, None] = {}
        self._event = asyncio.Event()

    def put(self, payload: str) -> None:
        """Add a payload and wake the waiter; beyond a bound, payloads are replaced by "any"."""
        if self._wanted is not None and payload and payload not in self._wanted:
            return
        if len(self._payloads) < _PAYLOADS:
            self._payloads[payload] = None
        else:
            self._payloads = {"": None}
        self._event.set()

    async def wait(self, timeout: float) -> list[str]:
        """Return distinct payloads since the last call, oldest first; empty after `timeout` seconds.

        Poll the rows in any case.
        """
        try:
            if not self._event.is_set():
                await asyncio.wait_for(self._event.wait(), timeout)
        except TimeoutError:
            return []
        self._event.clear()
        payloads, self._payloads = list(self._payloads), {}
        return payloads


class Notifications:
    """One listening connection of a service, shared by all its subscriptions."""

    def __init__(self, database_url: str) -> None:
        self._database = parse(database_url)
        self._subscriptions: dict[str, set[Subscription]] = {}
        self._changed = asyncio.Event()

    @contextmanager
    def subscribe(self, channel: str, wanted: Container[str] | None = None) -> Iterator[Subscription]:
        """Receive notifications on `channel` while the block runs: payloads in `wanted`, or all."""
        subscription = Subscription(wanted)
        with self.delivering(channel, subscription):
            yield subscription

    @contextmanager
    def delivering(self, channel: str, subscription: Subscription) -> Iterator[None]:
        """Deliver notifications on `channel` to `subscription` while the block runs."""
        if channel not in self._subscriptions:
            self._subscriptions[channel] = set()
            self._changed.set()
        self._subscriptions[channel].add(subscription)
        try:
            yield
        finally:
            self._subscriptions[channel].discard(subscription)

    async def run(self, stop: asyncio.Event) -> None:
        """Listen until `stop`. A lost connection is replaced with backoff; then, and at the end, every waiter is woken."""
        backoff, failures = Backoff(), FailureLog(_log)
        while not stop.is_set():
            try:
                connection = await self._database.connect(command_timeout=10)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                failures.failed("notifications: database unreachable", error)
                await wait_or_stop(stop, backoff.next())
                continue
            try:
                await self._listen(connection, stop)
                backoff.reset()
            except (OSError, TimeoutError, ReadsOnly, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                failures.failed("notifications: connection lost", error)
                await wait_or_stop(stop, backoff.next())
            finally:
                connection.terminate()
        for channel in self._subscriptions:  # waiters must end, too
            self._wake(channel)

    async def _listen(self, connection: "asyncpg.Connection[asyncpg.Record]", stop: asyncio.Event) -> None:
        listening: set[str] = set()
        stopping = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                self._changed.clear()
                for channel in self._subscriptions.keys() - listening:
                    await connection.add_listener(channel, self._received)
                    listening.add(channel)
                    self._wake(channel)
                changed = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait((stopping, changed), timeout=_CHECK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                if await connection.fetchval(statements.READ_ONLY_SETTING, timeout=10) == "on":
                    raise ReadsOnly
        finally:
            stopping.cancel()

    def _wake(self, channel: str) -> None:
        for subscription in self._subscriptions.get(channel, ()):
            subscription.put("")

    def _received(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        for subscription in self._subscriptions.get(channel, ()):
            subscription.put(str(payload))
