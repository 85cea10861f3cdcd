"""Adds reconnect backoff to Kafka clients, because aiokafka connects as often as any of its tasks asks, without a pause.

After a failed attempt no connection to that broker is tried for a while, longer each time up to `LONGEST_SECONDS`, as
Java's clients and librdkafka do (reconnect.backoff). Tasks that need the broker meanwhile wait; then one of them tries for
all. Metadata is requested at most ten times a second: while a broker starts, leaders are unknown and aiokafka asks again at
once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka.client import AIOKafkaClient

from services.chassis.process.transient import pause_before

_FIRST_SECONDS = 0.1
LONGEST_SECONDS = 1.0
"""The longest delay in noticing that a broker is back."""
_METADATA_SECONDS = 0.1

Broker = int | str


def pace(client: AIOKafkaClient) -> None:
    """Make a client that has not started yet wait between its attempts; this starts no task, so none remains at the end."""
    client._get_conn = _Connecting(client._get_conn)
    client._metadata_update = _Spaced(client._metadata_update)


@dataclass(slots=True)
class _Pause:
    """A broker that could not be reached."""

    until: float
    failures: int
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the task that tries after the pause."""


class _Connecting:
    """Returns the existing or a new connection to a broker; None if it cannot be reached."""

    def __init__(self, connect: Callable[..., Awaitable[Any]]) -> None:
        self._connect = connect
        self._pauses: dict[Broker, _Pause] = {}

    async def __call__(self, broker: Broker, **options: Any) -> Any:
        if (pause := self._pauses.get(broker)) is None:
            return await self._try(broker, None, options)
        async with pause.turn:
            now = self._pauses.get(broker)
            if now is pause:
                await asyncio.sleep(max(0.0, pause.until - asyncio.get_running_loop().time()))
            elif now is not None:  # the task that had the turn failed
                return None
            return await self._try(broker, now, options)

    async def _try(self, broker: Broker, pause: _Pause | None, options: Mapping[str, Any]) -> Any:
        connection = await self._connect(broker, **options)
        if connection is not None:
            self._pauses.pop(broker, None)
        elif self._pauses.get(broker) is pause:  # else another task has failed meanwhile, and its pause counts
            failures = pause.failures + 1 if pause else 1
            wait = pause_before(failures, _FIRST_SECONDS, LONGEST_SECONDS)
            self._pauses[broker] = _Pause(asyncio.get_running_loop().time() + wait, failures)
        return connection


class _Spaced:
    """Runs metadata updates one after the other, with some time between them."""

    def __init__(self, update: Callable[..., Awaitable[bool]]) -> None:
        self._update = update
        self._last = float("-inf")

    async def __call__(self, *arguments: Any) -> bool:
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(max(0.0, self._last + _METADATA_SECONDS - clock()))
        self._last = clock()
        return await self._update(*arguments)
