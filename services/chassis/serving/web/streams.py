"""Streams server-sent events, with a keep-alive comment while nothing happens and an end when the process stops.

A connection of `services.chassis.serving.web.protocol` gives a stream a place, of which there are fewer than connections, and
ends it when the server shuts down. Other servers do neither.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.chassis.serving.problem import Problem

EXTENSION = "neuroweaver.streams"
ALIVE_SECONDS = 15.0
"""The longest time without output; a silent stream then sends a keep-alive comment."""
DOCUMENTED: Mapping[str, Any] = {
    "description": "Server-sent events.",
    "content": {
        "text/event-stream": {
            "itemSchema": {
                "type": "object",
                "required": ["event", "data"],
                "properties": {name: {"type": "string"} for name in ("event", "data", "id")},
            }
        }
    },
}
"""Describes a stream in the OpenAPI document, as in version 3.2. The route's response class must then be `Response`."""
_ALIVE = b": ping\n\n"
_STOPS = b": the service stops; come back with Last-Event-ID\n\n"


class StreamSlot(Protocol):
    """The part of a connection that grants places to streams."""

    @property
    def limit(self) -> int:
        """The most streams that the server allows."""

    def take(self, end: Callable[[], None]) -> bool:
        """Return whether the response may be a stream; `end` is called when the server shuts down."""


class Source(Protocol):
    """Produces the content of one stream."""

    woken: asyncio.Event
    """Set when there may be something to take."""

    def take(self) -> bytes | None:
        """Return what was not sent yet, empty if there is nothing; None at the end."""

    def leave(self) -> None:
        """Release the source: the stream has no reader any more."""


class EventStream(Response):
    """Sends the content of `source`. For a caller that does not read, at most one piece is buffered."""

    media_type = "text/event-stream"

    def __init__(self, source: Source) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._source = source
        self._ends = self._silent = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream. Raises a 503 Problem if the server has reached its limit of streams."""
        try:
            place: StreamSlot | None = scope.get("extensions", {}).get(EXTENSION)
            if place is not None and not place.take(self._end):
                raise _full(place.limit)
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            gone = asyncio.create_task(_disconnected(receive))
            gone.add_done_callback(lambda _: self._source.woken.set())
            try:
                await self._say(gone, send)
            finally:
                gone.cancel()
        finally:
            self._source.leave()

    async def _say(self, gone: "asyncio.Task[None]", send: Send) -> None:
        while not gone.done():
            self._source.woken.clear()
            said = self._source.take()
            if said is None or self._ends:
                rest = b"" if said is None else said + _STOPS
                await send({"type": "http.response.body", "body": rest, "more_body": False})
                return
            if said or self._silent:
                self._silent = False
                await send({"type": "http.response.body", "body": said or _ALIVE, "more_body": True})
            else:
                await self._wait()

    async def _wait(self) -> None:
        """Wait until the source wakes the stream or the keep-alive is due, with jitter for streams that were opened
        together."""
        seconds = ALIVE_SECONDS * random.uniform(0.5, 1.0)  # noqa: S311 (jitter, no secret)
        alive = asyncio.get_running_loop().call_later(seconds, self._keep_alive)
        try:
            await self._source.woken.wait()
        finally:
            alive.cancel()

    def _keep_alive(self) -> None:
        self._silent = True
        self._source.woken.set()

    def _end(self) -> None:
        self._ends = True
        self._source.woken.set()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _full(limit: int) -> Problem:
    detail = (
        f"this process has reached its limit of {limit} streams; read the same state without /events, try again later, or "
        "raise NEUROWEAVER_HTTP_STREAMS"
    )
    return Problem(503, "Too many streams", detail, headers={"Retry-After": "5"})
