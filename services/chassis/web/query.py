"""A parameter that a route does not know is refused: ignored, a misspelt filter would list everything."""

import difflib
from collections.abc import Iterable, Mapping
from functools import cached_property
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request

from schemas.reasons import Reason, shown
from services.chassis.problem import Problem


class KnownQueries:
    """The parameters that the OpenAPI document of an application names, and no others. For `Depends` of all its routes."""

    def __init__(self, app: FastAPI, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    @cached_property
    def _known(self) -> Mapping[tuple[str, str], tuple[str, ...]]:
        return {
            (path, method.upper()): tuple(
                parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"
            )
            for path, operations in self._app.openapi()["paths"].items()
            for method, operation in operations.items()
        }

    async def __call__(self, request: Request) -> None:
        """Raises a 422 Problem that names the parameter and the known ones."""
        if not request.url.query:
            return
        known = self._known.get((self._prefix + request.scope["route"].path, request.method), ())
        given = [name for name, _ in parse_qsl(request.url.query, keep_blank_values=True)]
        if faults := list(_faults(given, known)):
            raise Problem.of(422, "The request is not valid", faults)


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
