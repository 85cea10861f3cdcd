"""Builds the HTTP application: every service gets the same health, metrics, problem+json (RFC 9457) and docs."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from schemas.reasons import reason_of_error
from services.chassis.serving import probes
from services.chassis.serving.problem import REASONS_SHOWN, Problem
from services.chassis.serving.service import Service
from services.chassis.serving.web.body import RequestBodies
from services.chassis.serving.web.callers import AllowedCallers, CallerCheck
from services.chassis.serving.web.document import complete
from services.chassis.serving.web.error_responses import ErrorResponses
from services.chassis.serving.web.gate import Gate
from services.chassis.serving.web.head_requests import HeadRequests
from services.chassis.serving.web.pages import add_pages
from services.chassis.serving.web.request_metrics import RequestMetrics
from services.chassis.serving.web.settings import HttpSettings

API = "/api/v1"
_SHOWN = 200
_METHODS = frozenset({"get", "put", "post", "delete", "patch"})
_NONE = TelemetryConfig(tracing=False, metrics=False, logs=False)
"""Disables FastAPI's check for telemetry on each request; `RequestMetrics` counts requests instead."""


def application(services: Sequence[Service], settings: HttpSettings | None = None) -> FastAPI:
    """Build an application that runs `services` during its lifespan and serves their routes, under `/api/v1` but for those of callers."""
    door = settings or HttpSettings()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as running:
            for service in services:
                await running.enter_async_context(service.lifespan())
            yield

    app = FastAPI(
        title="NeuroWeaver",
        summary="Turns one event into a better language model, and proves how it was made.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        telemetry=_NONE,
    )
    healths = probes.router([service.health for service in services])
    own, others = [service.routers[0] for service in services], [one for service in services for one in service.routers[1:]]
    for router in (*own, healths, *others):  # searched in this order, so frequent routes come first
        app.include_router(router, prefix=API)
    for router in (router for service in services for router in service.callers):
        app.include_router(router)
    add_pages(app, API, [service.name for service in services])
    limits = {path: limit for service in services for path, limit in service.body_limits(API).items()}
    owners = {path: service.health for service in services for path in service.paths(API)}
    app.openapi = _documented(app)  # type: ignore[method-assign]
    app.add_middleware(Gate, document=app.openapi, prefix=API, owners=owners)
    app.add_middleware(RequestBodies, limits=limits)
    app.add_middleware(HeadRequests)
    app.add_middleware(CallerCheck, allowed=AllowedCallers(frozenset(door.http_hosts), frozenset(door.http_origins)))
    app.add_middleware(ErrorResponses)
    app.add_middleware(RequestMetrics)  # the last one added runs first
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    return app


def _documented(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return the OpenAPI document, which is built once."""
    made = app.openapi
    return lru_cache(1)(lambda: complete(made()))


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response(request.url.path)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    reasons = [reason_of_error(item) for item in found[:REASONS_SHOWN]]
    left_out = len(found) - len(reasons)
    return Problem.of(422, "The request is not valid", reasons, left_out).response(request.url.path)


_path = lru_cache(512)(compile_path)


def _methods(request: Request) -> list[str]:
    """Return the methods of all routes with the request's path; Starlette names those of the first one only."""
    document, path = request.app.openapi(), request.url.path
    found = {
        method.upper()
        for template, operations in document["paths"].items()
        if _path(template)[0].match(path)
        for method in operations
        if method in _METHODS
    }
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers, asked = error.headers, f"{request.method[:_SHOWN]} {request.url.path[:_SHOWN]}"
    if error.status_code == 404 and error.detail == "Not Found":
        problem = Problem(404, "Not found", f"no route {asked}; see /docs", headers=headers)
    elif error.status_code == 405:
        allowed = ", ".join(_methods(request)) or "GET"
        detail = f"{asked} is not answered; use {allowed}"
        problem = Problem(405, "Method not allowed", detail, headers={"Allow": allowed})
    else:
        problem = Problem(error.status_code, str(error.detail), str(error.detail), headers=headers)
    return problem.response(request.url.path)
