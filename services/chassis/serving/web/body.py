"""Reads a request's body once, within a size limit, before any route runs, and refuses ambiguous or invalid JSON."""

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.json_text import DEPTH_LIMIT, NoJson, parse, storable
from schemas.reasons import Reason
from services.chassis.serving.problem import Problem
from services.chassis.serving.web.offloading import in_thread_if_large

BODY_BYTES = 32 * 1024
"""Limit of routes that set none of their own: a reason and a name in the longest spelling that JSON allows."""
_INVALID = "The request is not valid"


class RequestBodies:
    """Middleware that reads bodies of at most `otherwise` bytes, or of the limit that `limits` has for the path."""

    def __init__(self, app: ASGIApp, limits: Mapping[str, int], otherwise: int = BODY_BYTES) -> None:
        self._app, self._limits, self._otherwise = app, limits, otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not has_body(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
            if body:
                await in_thread_if_large(len(body), check, body)
        except Problem as problem:
            await problem.response(scope["path"])(scope, receive, send)
        except _Disconnected:
            return
        else:
            await self._app(scope, _replayed(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
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
