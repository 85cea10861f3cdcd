"""A client of Kafka whose broker is away tries at a walk: aiokafka connects as often as any of its tasks asks, without a pause.

After an attempt that failed a broker is left alone, for longer each time up to `LONGEST_SECONDS`, as Java's clients and librdkafka
do (reconnect.backoff). Whoever wants it meanwhile waits; one of those tries then, for all.
Metadata is asked for ten times a second at most: while a broker starts, leaders are unknown and aiokafka asks again at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka.client import AIOKafkaClient

from services.chassis.process.transient import pause_before

_FIRST_SECONDS = 0.1
LONGEST_SECONDS = 1.0
"""So much later than possible a broker that is back is noticed at most."""
_METADATA_SECONDS = 0.1

Broker = int | str


def pace(client: AIOKafkaClient) -> None:
    """Have a client that has not started yet wait between its attempts; no task is begun for it, so none is left at the end."""
    client._get_conn = _Connecting(client._get_conn)
    client._metadata_update = _Spaced(client._metadata_update)


@dataclass(slots=True)
class _Pause:
    """A broker that could not be reached."""

    until: float
    failures: int
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the task that tries when the pause is over."""


class _Connecting:
    """A connection to a broker, the one there is or a new one; None where it cannot be reached."""

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
            elif now is not None:  # who had the turn tried in vain
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
    """One look at the metadata after the other, each some time after the one before."""

    def __init__(self, update: Callable[..., Awaitable[bool]]) -> None:
        self._update = update
        self._last = float("-inf")

    async def __call__(self, *arguments: Any) -> bool:
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(max(0.0, self._last + _METADATA_SECONDS - clock()))
        self._last = clock()
        return await self._update(*arguments)
