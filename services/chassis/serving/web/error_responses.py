"""Turns an unexpected error of a route into an HTTP response: the connection stays usable, and the log has the details."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.chassis.process.logging import get_logger
from services.chassis.process.transient import OtherDeployment, is_transient
from services.chassis.serving.problem import Problem

_log = get_logger(__name__)


class ErrorResponses:
    """Middleware that answers 503 if database or broker are unreachable, and 500 for a bug."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http":
                raise
            problem = _problem(error)
            if problem.status == 500 or begun:
                _log.error("request failed", path=scope["path"][:200], exc_info=error)
            if not begun:
                await problem.response(scope["path"])(scope, receive, send)


def _problem(error: Exception) -> Problem:
    if isinstance(error, OtherDeployment):
        return Problem(503, "Unavailable", str(error), headers={"Retry-After": "5"})
    if is_transient(error):
        detail = "the database or the broker does not answer; try again shortly"
        return Problem(503, "Unavailable", detail, headers={"Retry-After": "2"})
    return Problem(500, "Internal error", "this is a bug of the service; its log has the details")
