"""Why: one HTTP surface for every service: the same health, metrics, problem+json (RFC 9457) and docs, whoever is mounted."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.reasons import reason_of_error
from services.chassis import metrics, probes
from services.chassis.health import Health
from services.chassis.logging import get_logger
from services.chassis.problem import Problem
from services.chassis.service import Service
from services.chassis.surroundings import OtherDeployment, is_surroundings

_log = get_logger(__name__)
API = "/api/v1"


def application(services: Sequence[Service]) -> FastAPI:
    """An application that runs `services` while it is up and serves their routes under `/api/v1`."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as running:
            for service in services:
                await running.enter_async_context(service.lifespan())
            yield

    app = FastAPI(
        title="NeuroWeaver",
        summary="Turns one event into a better language model, and proves how it came about.",
        version="1",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.include_router(probes.router([service.health for service in services]), prefix=API)
    for service in services:
        app.include_router(service.router, prefix=API, dependencies=[Depends(_migrated(service.health))])
    app.add_middleware(_Measure)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _failed)
    return app


def _migrated(health: Health) -> Callable[[], Awaitable[None]]:
    """Routes of a service that is still starting refuse: its tables may not exist yet."""

    async def check() -> None:
        if reason := health.missing.get("migrated"):
            detail = f"{health.service} is starting, its database is not migrated ({reason}); try again shortly"
            raise Problem(503, "Unavailable", detail, headers={"Retry-After": "2"})

    return check


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response(request.url.path)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    reasons = [reason_of_error(item) for item in error.errors()]
    detail = "; ".join(str(reason) for reason in reasons)
    return Problem(422, "The request is not valid", detail, reasons=reasons).response(request.url.path)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = error.headers
    if error.status_code == 404 and error.detail == "Not Found":
        problem = Problem(404, "Not found", f"no route {request.method} {request.url.path}; see /docs", headers=headers)
    else:
        problem = Problem(error.status_code, str(error.detail), str(error.detail), headers=headers)
    return problem.response(request.url.path)


async def _failed(request: Request, error: Exception) -> Response:
    if isinstance(error, OtherDeployment):
        return Problem(503, "Unavailable", str(error), headers={"Retry-After": "5"}).response(request.url.path)
    if is_surroundings(error):
        detail = "the database or the broker does not answer; try again shortly"
        return Problem(503, "Unavailable", detail, headers={"Retry-After": "2"}).response(request.url.path)
    _log.error("request failed", path=request.url.path, exc_info=error)
    return Problem(500, "Internal error", "this is a fault of the service; its log has the details").response(
        request.url.path
    )


class _Measure:
    """Seconds per request by route template: raw paths would make a time series of every scanner's guess."""

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
            route = getattr(scope.get("route"), "path", "unmatched")
            metrics.HTTP_SECONDS.labels(scope["method"], route, str(status)).observe(time.perf_counter() - started)
