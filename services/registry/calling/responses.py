"""Sends a server's answer to the caller, whole or in pieces, and counts what became of the request."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import NamedTuple

import httpx2
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from schemas.ids import new_id
from services.chassis.serving.problem import Problem, openai_error
from services.chassis.serving.web.offloading import in_thread_if_large
from services.chassis.serving.web.streams import EXTENSION, StreamSlot
from services.registry.bounded import bounded
from services.registry.calling import metrics
from services.registry.calling.answers import DONE, Answered, NotAnAnswer, Pieces, framed
from services.registry.calling.asked import Asked
from services.registry.calling.forwarding import Forwarder, ServerFailed
from services.registry.calling.routing import Server

ANSWER_BYTES = 16 * 1024 * 1024
"""The most bytes of an answer that is not streamed."""


class _Whole(NamedTuple):
    """An answer that was read to its end."""

    status: int
    body: bytes


@dataclass
class _Begun:
    """A streamed answer of which the first piece is here."""

    answer: httpx2.Response
    first: bytes
    rest: AsyncIterator[bytes]


class ForwardedAnswer(Response):
    """The answer to one request. It ends when its caller goes away, and then so does the server's."""

    def __init__(self, forwarder: Forwarder, asked: Asked) -> None:
        super().__init__()
        self._forwarder, self._asked = forwarder, asked
        self._answered = Answered(f"chatcmpl-{new_id()}")
        self._server: Server | None = None
        self._started = time.perf_counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer. Raises a Problem as long as nothing was sent."""
        answering = asyncio.create_task(self._streamed(scope, send) if self._asked.stream else self._whole(send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait((answering, gone), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                self._count("left")
        finally:
            gone.cancel()
            if not answering.done():
                answering.cancel()
            await asyncio.wait((answering,))
        if not answering.cancelled():
            answering.result()

    async def _whole(self, send: Send) -> None:
        status, body = await self._forwarder.answer(self._asked, self._read)
        await send(
            {"type": "http.response.start", "status": status, "headers": self._sent_headers(b"application/json", len(body))}
        )
        await send({"type": "http.response.body", "body": body})
        self._count("refused" if status >= 400 else self._outcome)

    async def _read(self, server: Server, answer: httpx2.Response) -> _Whole:
        self._answered_by(server)
        body = await bounded(answer, ANSWER_BYTES)
        if body is None:
            raise NotAnAnswer(f"its server's answer is larger than {ANSWER_BYTES} bytes")
        if answer.is_success:
            return _Whole(200, await in_thread_if_large(len(body), self._answered.whole, body))
        return _Whole(answer.status_code, refusal(answer.status_code, body))

    async def _streamed(self, scope: Scope, send: Send) -> None:
        place: StreamSlot | None = scope.get("extensions", {}).get(EXTENSION)
        if place is not None and not place.take(_goes_on):
            raise Problem(
                503, "Too many streams", f"this process has reached its limit of {place.limit} streams; ask again later"
            )
        begun = await self._forwarder.answer(self._asked, self._begin)
        if isinstance(begun, _Whole):
            headers = self._sent_headers(b"application/json", len(begun.body))
            await send({"type": "http.response.start", "status": begun.status, "headers": headers})
            await send({"type": "http.response.body", "body": begun.body})
            self._count("refused")
            return
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self._sent_headers(b"text/event-stream")})
            await self._pass_on(begun, send)
        finally:
            await begun.answer.aclose()

    async def _begin(self, server: Server, answer: httpx2.Response) -> _Begun | _Whole:
        if not answer.is_success:
            return await self._read(server, answer)
        self._answered_by(server)
        rest = self._pieces(answer)
        first = await anext(rest, None)
        if first is None:
            raise ServerFailed("its server's stream has no piece")
        return _Begun(answer, first, rest)

    def _answered_by(self, server: Server) -> None:
        """Note which server answers; what one before it said is forgotten."""
        shadows, self._server, self._answered.model = self._forwarder.shadows, server, server.served
        self._answered.keeps = shadows is not None and shadows.wants(server, self._asked)
        self._answered.texts.clear()

    async def _pieces(self, answer: httpx2.Response) -> AsyncIterator[bytes]:
        pieces = Pieces()
        async for data in answer.aiter_bytes():
            for piece in pieces.of(data):
                yield framed(piece if piece == DONE else self._answered.piece(piece))
                if piece == DONE:
                    return
        raise ServerFailed("its server's stream ended in the middle")

    async def _pass_on(self, begun: _Begun, send: Send) -> None:
        await send({"type": "http.response.body", "body": begun.first, "more_body": True})
        last, outcome = b"", None
        try:
            async for piece in begun.rest:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except (httpx2.TransportError, ServerFailed, NotAnAnswer):
            last, outcome = (
                framed(openai_error("the answer was broken off; ask again", "server_error", "broken_off")),
                "broken off",
            )
        await send({"type": "http.response.body", "body": last, "more_body": False})
        self._count(outcome or self._outcome)

    def _sent_headers(self, media_type: bytes, length: int | None = None) -> list[tuple[bytes, bytes]]:
        assert self._server is not None
        headers = [
            (b"content-type", media_type), (b"x-neuroweaver-version", self._server.served.encode()),
            (b"x-neuroweaver-deployment", self._server.deployment.encode()),
            (b"x-neuroweaver-response", self._answered.id.encode()), (b"cache-control", b"no-store"),
        ]  # fmt: skip
        return headers if length is None else [*headers, (b"content-length", str(length).encode())]

    @property
    def _outcome(self) -> str:
        return "answered" if self._answered.says else "empty"

    def _count(self, outcome: str) -> None:
        if self._server is None:
            return
        name, seconds = self._server.deployment, time.perf_counter() - self._started
        metrics.REQUESTS.labels(name, outcome).inc()
        if outcome in ("answered", "empty"):
            metrics.SECONDS.labels(name).observe(seconds)
            self._forwarder.routing.counts.answered(self._server.step, seconds, says=outcome == "answered")
            if self._answered.keeps and self._forwarder.shadows is not None and outcome == "answered":
                self._forwarder.shadows.offer(self._server, self._asked, self._answered.id, "".join(self._answered.texts))
        elif outcome == "broken off":
            self._forwarder.routing.counts.failed(self._server.step)
        for kind, count in self._answered.usage.items():
            metrics.TOKENS.labels(name, kind).inc(count)


def refusal(status: int, body: bytes) -> bytes:
    """Return the body of a refusal in OpenAI's shape, with the server's words where it is one."""
    if b'"error"' in body and len(body) <= 64 * 1024:
        return body
    return openai_error(body[:1000].decode("utf-8", "replace") or f"status {status}", "invalid_request_error", "refused")


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _goes_on() -> None:
    """A server that stops lets an answer that has begun come to its end, within its time to drain."""
