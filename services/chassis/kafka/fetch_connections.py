"""Gives a consumer's fetches separate connections, so that its other requests to a broker do not wait behind them.

A broker answers the requests of one connection in order, and holds a fetch open for half a second if there is nothing new.
aiokafka sends all but the group's requests over one connection per broker, so each query of a log's ends and ids took as
long.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.protocol.fetch import FetchRequest

_FETCHES = "fetches"
"""Identifies the fetch connections among aiokafka's connection groups."""


def fetch_apart(client: AIOKafkaClient) -> None:
    """Make a client that has not started yet use separate connections for fetches."""
    client.send = _Apart(client.send)


class _Apart:
    """Replaces aiokafka's `send`."""

    def __init__(self, send: Callable[..., Awaitable[Any]]) -> None:
        self._send = send

    async def __call__(self, node_id: int, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        return await self._send(node_id, request, group=_FETCHES if isinstance(request, FetchRequest) else group)
