"""Refuses requests by host, origin and content type, so that no foreign web page can write through an operator's browser.

A browser sends in Host the name that a page used for this server, which reveals a foreign name that resolves to it (DNS
rebinding). With every write it sends Origin, and the page's relation to this server in Sec-Fetch-Site. It sends a preflight
request before a page may send JSON to another origin. Go's `http.CrossOriginProtection` checks the same two headers; here
both must agree.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from services.chassis.serving.problem import Problem
from services.chassis.serving.web.body import has_body
from services.chassis.serving.web.settings import ANY

_READS = ("GET", "HEAD", "OPTIONS")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9_.-]{1,253})(:\d{1,5})?")
_JSON = "application/json"
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class AllowedCallers:
    """Which hosts and origins may call, besides programs on this machine."""

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()


class CallerCheck:
    """Middleware that refuses callers that are not allowed, before it reads their body."""

    def __init__(self, app: ASGIApp, allowed: AllowedCallers) -> None:
        self._app, self._allowed = app, allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            server = scope.get("server") or ("", None)
            problem = refusal(scope["method"], Headers(scope=scope), str(server[0]), self._allowed)
            if problem is not None:
                await problem.response(scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)


def refusal(method: str, headers: Headers, own_address: str, allowed: AllowedCallers) -> Problem | None:
    """Why a request is refused; None if it is not. `own_address` is the address that the connection was made to."""
    if (problem := _of_host(headers, own_address, allowed)) or method in _READS:
        return problem
    return _of_origin(headers, allowed) or _of_media_type(headers)


def _of_host(headers: Headers, own_address: str, allowed: AllowedCallers) -> Problem | None:
    given = headers.getlist("host")
    match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
    if match is None:
        said = f"Host is {given[0][:_SHOWN]!r}" if given else "Host is missing"
        return Problem(400, "No host", f"{said}; send one Host header with the name or address that you call")
    host = match[1].lower().strip("[]").rstrip(".")
    if ANY in allowed.hosts or host in allowed.hosts or host == own_address or _is_loopback(host):
        return None
    detail = (
        f"{host[:_SHOWN]!r} is not a name of this service; call it by its address or localhost, or add the name to "
        "NEUROWEAVER_HTTP_HOSTS"
    )
    return Problem(421, "The host is not this service", detail)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _of_origin(headers: Headers, allowed: AllowedCallers) -> Problem | None:
    origin, near = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and origin.lower() in allowed.origins:
        return None
    near_enough = near in (None, "same-origin", "none")
    if near_enough and (origin is None or origin.lower().partition("://")[2] == headers.get("host", "").lower()):
        return None
    page = f"a web page of {origin[:_SHOWN]!r}" if origin is not None else "a web page of another origin"
    detail = f"{page} may not change anything here; add its origin to NEUROWEAVER_HTTP_ORIGINS if it should"
    return Problem(403, "Foreign origin", detail)


def _of_media_type(headers: Headers) -> Problem | None:
    """Refuse bodies that are not JSON in UTF-8 without content encoding."""
    given = headers.get("content-type")
    if given is None and not has_body(headers):
        return None
    media_type, _, parameters = (given or "").partition(";")
    charset = parameters.partition("charset=")[2].strip("\" '").lower()
    said = None
    if media_type.strip().lower() != _JSON:
        said = f"content-type is {given[:_SHOWN]!r}" if given else "content-type is missing"
    elif charset not in ("", "utf-8", "utf8", "us-ascii"):
        said = f"charset is {charset[:_SHOWN]!r}"
    elif headers.get("content-encoding", "identity").lower() != "identity":
        said = f"content-encoding is {headers['content-encoding'][:_SHOWN]!r}"
    return Problem(415, "Unsupported media type", f"{said}; send the request as {_JSON} in UTF-8") if said else None
