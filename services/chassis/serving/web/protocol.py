"""Adds time-outs to uvicorn's HTTP/1.1 protocol for every wait for a caller: for headers, a body, or reading a response.

uvicorn limits only the idle time between two requests (https://github.com/Kludex/uvicorn/issues/157), and middleware sees a
request only when its headers are complete. A connection waits for its caller in every state except `working`:

    new → header → body → working → idle → header
"""

import asyncio
from collections.abc import Callable
from typing import Any, Literal, cast

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from services.chassis.serving.problem import Problem
from services.chassis.serving.web.coalescing import CoalescingTransport
from services.chassis.serving.web.connections import Cause, Connections
from services.chassis.serving.web.settings import HttpSettings
from services.chassis.serving.web.streams import EXTENSION, StreamSlot

_State = Literal["new", "idle", "header", "body", "working"]
_TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"


class PatientProtocol(H11Protocol):
    """One connection. `protocol_of` makes subclasses that know the limits and the other connections."""

    settings: HttpSettings
    places: Connections
    health: tuple[str, ...]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._state: _State = "new"
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place, or close the connection."""
        self.transport = transport
        may = self.places.admit(self)
        if may == "nothing":
            transport.abort()
            return
        if may == "health only":
            self.app = cast(Any, _HealthOnly(cast(ASGIApp, self.app), self.health))
        self.app = cast(Any, _MayStream(cast(ASGIApp, self.app), self))
        super().connection_made(cast(asyncio.Transport, CoalescingTransport(transport, self.loop)))
        self._enter("header")

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the place."""
        self.places.gone(self)
        self._set_deadline(None)
        if self._unread is not None:
            self._unread.cancel()
        if self._state != "new":
            super().connection_lost(exc)
        gone = cast(Any, self)  # drop references, since the garbage collector runs rarely
        gone.app = gone.cycle = gone.scope = gone.flow = None

    def data_received(self, data: bytes) -> None:
        """Receive a part of a request."""
        if self._state == "idle":
            self._enter("header")
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Note that a response is complete."""
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        """Note that the caller does not read the response."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.settings.http_unread_seconds, self._too_slow, "unread answer")

    def resume_writing(self) -> None:
        """Note that the caller reads again."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def shutdown(self) -> None:
        """Shut down: streams end, at once if nobody reads them; other responses are completed."""
        super().shutdown()
        if self.places.end(self) and self.flow.write_paused:
            self.transport.abort()

    @property
    def limit(self) -> int:
        """The most streams that the server allows."""
        return self.places.streams

    def take(self, end: Callable[[], None]) -> bool:
        """Return whether the response may be a stream."""
        return self.places.stream(self, end)

    def give_up(self) -> None:
        """Close the connection at once, whatever is still to be sent."""
        self.transport.abort()

    def _look(self) -> None:
        """Derive the connection's state from uvicorn's state after new bytes."""
        if self.cycle is None:
            return  # the first request's headers are incomplete
        if self.conn.their_state is h11.SEND_BODY:
            self._enter("body")
        elif not self.cycle.response_complete:
            self._enter("working")
        elif self._state != "header":
            self._enter("idle")

    def _enter(self, state: _State) -> None:
        if state == self._state or self.transport.is_closing():
            return
        self._state = state
        if state == "working":
            self.places.works(self)
            self._set_deadline(None)
            return
        self.places.waits(self)
        if state == "header":
            self._set_deadline(self.settings.http_header_seconds, "slow header")
        elif state == "body":
            self._set_deadline(self.settings.http_body_seconds, "slow body")
        else:
            self._set_deadline(None)  # uvicorn closes it after http_idle_seconds

    def _set_deadline(self, seconds: float | None, cause: Cause = "slow header") -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self._too_slow, cause)

    def _too_slow(self, cause: Cause) -> None:
        self.places.note(cause)
        if cause == "unread answer":
            self.transport.abort()
            return
        if cause == "slow header" or not self.cycle.response_started:
            self.transport.write(_timeout_response(cause))
        self.transport.close()


def protocol_of(settings: HttpSettings, places: Connections, health: tuple[str, ...]) -> type[H11Protocol]:
    """Return the protocol of one server with `places`; paths that start with one of `health` are answered even when all are
    taken."""
    return type("Protocol", (PatientProtocol,), {"settings": settings, "places": places, "health": health})


class _MayStream:
    """Tells the application which connection a stream would occupy."""

    def __init__(self, app: ASGIApp, place: StreamSlot) -> None:
        self._app, self._place = app, place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = {**scope.get("extensions", {}), EXTENSION: self._place}
        await self._app(scope, receive, send)


class _HealthOnly:
    """Middleware that lets a connection beyond the limit request health only."""

    def __init__(self, app: ASGIApp, health: tuple[str, ...]) -> None:
        self._app, self._health = app, health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def once(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        if scope["type"] == "http" and scope["path"].startswith(self._health):
            await self._app(scope, receive, once)
        else:
            detail = (
                "this process has reached its limit of connections; try again later, or raise NEUROWEAVER_HTTP_CONNECTIONS"
            )
            busy = Problem(503, "Too many connections", detail, headers={"Retry-After": "2"})
            await busy.response(scope["path"])(scope, receive, once)


def _timeout_response(cause: Cause) -> bytes:
    part = "headers" if cause == "slow header" else "body"
    body = (
        Problem(408, "The request came too slowly", f"its {part} did not arrive in time; send it again").response("").body
    )
    return _TOO_LATE % (len(body), bytes(body))
