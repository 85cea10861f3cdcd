"""Refuses unknown query parameters and requests to a service that is still starting, before routing.

If an unknown parameter were ignored, a misspelt filter would list everything. The tables of a service that is still
starting may not exist yet. The check costs nothing in the usual case.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from schemas.reasons import Reason, shown
from services.chassis.process.health import Health
from services.chassis.serving.problem import Problem

_PART = re.compile(r"\{[^}]+\}")


class _Route(NamedTuple):
    """A route of the OpenAPI document."""

    pattern: re.Pattern[str]
    document_path: str
    path: str
    """The template as metrics show it, without the API's prefix."""
    parameters: Mapping[str, tuple[str, ...]]
    """Names of the query parameters, by method."""


class Gate:
    """Middleware that takes routes and their parameters from `document`, and their services from `owners`, by template."""

    def __init__(
        self, app: ASGIApp, document: Callable[[], dict[str, Any]], prefix: str, owners: Mapping[str, Health]
    ) -> None:
        self._app, self._document, self._prefix, self._owners = app, document, prefix, owners
        self._healths = tuple({id(health): health for health in owners.values()}.values())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["query_string"] or not all(map(_is_migrated, self._healths))):
            try:
                self._check(scope)
            except Problem as problem:
                await problem.response(scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Check the service and the query.

        Raises a 503 Problem for a service that is starting, or a 422 Problem that names the unknown and the known
        parameters.
        """
        method, path = scope["method"], scope["path"]
        route = next((one for one in self._routes if method in one.parameters and one.pattern.fullmatch(path)), None)
        if route is None:
            return  # the router answers with the allowed methods
        scope["route"] = route
        health = self._owners.get(route.document_path)
        if health is not None and (reason := health.missing.get("migrated")):
            detail = f"{health.service} is starting, its database is not migrated ({reason}); try again shortly"
            raise Problem(503, "Unavailable", detail, headers={"Retry-After": "2"})
        given = [name for name, _ in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)]
        if faults := list(_faults(given, route.parameters[method])):
            raise Problem.of(422, "The request is not valid", faults)

    @cached_property
    def _routes(self) -> list[_Route]:
        return [
            _Route(
                re.compile("[^/]+".join(map(re.escape, _PART.split(path))) + "\n?"),  # the router ignores one, too
                path,
                path.removeprefix(self._prefix),
                {
                    method.upper(): tuple(
                        parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"
                    )
                    for method, operation in operations.items()
                },
            )
            for path, operations in self._document()["paths"].items()
        ]


def _is_migrated(health: Health) -> bool:
    known = health.conditions.get("migrated")
    return known is not None and known.holds


def _faults(given: list[str], known: tuple[str, ...]) -> Iterable[Reason]:
    for name in dict.fromkeys(given):
        value = shown(name)
        if name not in known:
            near = difflib.get_close_matches(name[:100], known, n=1)
            remedy = f"did you mean {near[0]}? known are" if near else "leave it out; known are"
            yield Reason(
                field=f"query.{name}",
                value=value,
                message="this route has no such parameter",
                remedy=f"{remedy} {', '.join(known)}" if known else "leave it out; this route has no parameters",
            )
        elif given.count(name) > 1:
            yield Reason(field=f"query.{name}", value=value, message="the parameter is given twice", remedy="give it once")
