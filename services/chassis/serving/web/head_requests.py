"""Answers HEAD wherever GET is answered: with the same status and headers, and without a body (RFC 9110, 9.3.2)."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadRequests:
    """Middleware that routes HEAD as GET and ends the response after its headers, so that no stream continues unread."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def headers_only(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        get = {**scope, "method": "GET"}
        try:
            await self._app(get, receive, headers_only)
        finally:
            scope["route"] = get.get("route")
