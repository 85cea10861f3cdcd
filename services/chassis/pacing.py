"""A client of Kafka whose broker is away tries at a walk: aiokafka connects as often as any of its tasks asks, without a pause.

After an attempt that failed a broker is left alone, for longer each time up to `LONGEST_SECONDS`, as Java's clients and librdkafka
do (reconnect.backoff); whoever wants it meanwhile waits, so that the tasks of one client are no more than one attempt each.
Metadata is asked for ten times a second at most: while a broker starts, leaders are unknown and aiokafka asks again at once.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiokafka.client import AIOKafkaClient

from services.chassis.surroundings import pause_before

_FIRST_SECONDS = 0.1
LONGEST_SECONDS = 1.0
"""So much later than possible a broker that is back is noticed at most."""
_METADATA_SECONDS = 0.1

Broker = int | str


def pace(client: AIOKafkaClient) -> None:
    """Have a client that has not started yet wait between its attempts; no task is begun for it, so none is left at the end."""
    client._get_conn = _Connecting(client._get_conn)
    client._metadata_update = _Spaced(client._metadata_update)


@dataclass(frozen=True, slots=True)
class _Pause:
    """A broker that could not be reached."""

    until: float
    failures: int


class _Connecting:
    """A connection to a broker, the one there is or a new one; None where it cannot be reached."""

    def __init__(self, connect: Callable[..., Awaitable[Any]]) -> None:
        self._connect = connect
        self._pauses: dict[Broker, _Pause] = {}

    async def __call__(self, broker: Broker, **options: Any) -> Any:
        clock = asyncio.get_running_loop().time
        if (pause := self._pauses.get(broker)) is not None:
            await asyncio.sleep(max(0.0, pause.until - clock()))
        connection = await self._connect(broker, **options)
        if connection is not None:
            self._pauses.pop(broker, None)
        elif self._pauses.get(broker) is pause:  # else another task has failed meanwhile, and its pause counts
            failures = pause.failures + 1 if pause else 1
            wait = pause_before(failures, _FIRST_SECONDS, LONGEST_SECONDS)
            self._pauses[broker] = _Pause(clock() + wait, failures)
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
