"""Reads a request's body once, within a size limit, before any route runs, and refuses ambiguous or invalid JSON."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.json_text import DEPTH_LIMIT, NoJson, parse, storable
from schemas.reasons import Reason
from services.chassis.serving.problem import Problem
from services.chassis.serving.web.offloading import in_thread_if_large

BODY_BYTES = 32 * 1024
"""Limit of routes that set none of their own: a reason and a name in the longest spelling that JSON allows."""
HELD_BYTES = 64 * 1024 * 1024
"""Limit of all larger bodies of a process together, from their first bytes to the end of the answer: they may have to wait for a judge,
or for their own last byte."""
_INVALID = "The request is not valid"


class RequestBodies:
    """Middleware that reads bodies of at most `otherwise` bytes, or of the limit that `limits` has for the path; `together` limits
    all that are larger than `otherwise`."""

    def __init__(
        self, app: ASGIApp, limits: Mapping[str, int], otherwise: int = BODY_BYTES, together: int = HELD_BYTES
    ) -> None:
        self._app, self._limits, self._otherwise, self._together = app, limits, otherwise, together
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not has_body(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        with self._share() as hold:
            try:
                body = await self._read(scope, receive, hold)
                if body:
                    await in_thread_if_large(len(body), check, body)
            except Problem as problem:
                await problem.response(scope["path"])(scope, receive, send)
            except _Disconnected:
                return
            else:
                await self._app(scope, _replayed(body, receive), send)

    @contextmanager
    def _share(self) -> Iterator[Callable[[int], None]]:
        """Give the function with which a request says how large its body is by now; it raises a 503 Problem beyond the limit of all."""
        mine = 0

        def hold(size: int) -> None:
            nonlocal mine
            if size > self._otherwise:
                self._held, mine = self._held + size - mine, size
                if self._held > self._together:
                    raise _too_many(self._together)

        try:
            yield hold
        finally:
            self._held -= mine

    async def _read(self, scope: Scope, receive: Receive, hold: Callable[[int], None]) -> bytes:
        limit = self._limits.get(scope["path"], self._otherwise)
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdigit() and int(declared[:20]) > limit:
            raise _too_large(scope["path"], limit)
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Disconnected
            body += message.get("body", b"")
            if len(body) > limit:
                raise _too_large(scope["path"], limit)
            hold(len(body))
            if not message.get("more_body", False):
                return bytes(body)


class _Disconnected(Exception):
    """The caller disconnected before its request was complete."""


def has_body(headers: Headers) -> bool:
    """Whether a request announces a body; in HTTP/1.1 it has none otherwise."""
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip("0") != ""


def check(body: bytes) -> None:
    """Raise a 422 Problem for a body that is not JSON, or JSON that two parsers could read differently."""
    try:
        parsed = parse(body, doubled=True)
    except NoJson as error:
        raise _invalid([Reason(field="(request)", message=str(error), remedy="send one JSON object")]) from None
    faults = [Reason(field=name, message="the field is given twice", remedy="give it once") for name in parsed.doubled]
    if parsed.deep:
        message = f"the request is nested deeper than {DEPTH_LIMIT} levels"
        faults.append(Reason(field="(request)", message=message, remedy="send flatter JSON"))
    elif not parsed.plain:
        storable(parsed.value, "", faults)
    if faults:
        raise _invalid(faults)


def _invalid(faults: list[Reason]) -> Problem:
    return Problem.of(422, _INVALID, faults)


def _too_large(path: str, limit: int) -> Problem:
    detail = f"{path} reads a body of at most {limit} bytes; refer to data instead of sending it, and shorten texts"
    return Problem(413, "The request is too large", detail)


def _too_many(held: int) -> Problem:
    detail = f"the service holds large requests of {held} bytes, and reads no more of them; send it again shortly"
    return Problem(503, "Too many large requests", detail, headers={"Retry-After": "2"})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body that was read, then the remaining messages."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
