"""A consumer's fetches travel over connections of their own, so that nothing it asks a broker waits behind them.

A broker answers the requests of one connection in order, and keeps a fetch open for half a second where there is nothing new.
aiokafka sends everything but the group's requests over one connection per broker: each look at a log's ends and ids took as long.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.protocol.fetch import FetchRequest

_FETCHES = "fetches"
"""Names the connections beside aiokafka's own groups of them."""


def fetch_apart(client: AIOKafkaClient) -> None:
    """Have a client that has not started yet keep its fetches apart."""
    client.send = _Apart(client.send)


class _Apart:
    """As aiokafka's `send`."""

    def __init__(self, send: Callable[..., Awaitable[Any]]) -> None:
        self._send = send

    async def __call__(self, node_id: int, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        return await self._send(node_id, request, group=_FETCHES if isinstance(request, FetchRequest) else group)
