"""Measures seconds per request with labels from closed sets, so that no request can create new time series."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.chassis.serving import metrics

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))
_OTHER = "other"


class RequestMetrics:
    """Middleware that measures by method, route template (raw paths would create a time series for each guess) and
    status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observe)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else _OTHER
            route = getattr(scope.get("route"), "path", "unmatched")
            metrics.HTTP_SECONDS.labels(method, route, str(status)).observe(time.perf_counter() - started)
