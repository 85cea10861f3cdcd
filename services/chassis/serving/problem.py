"""Gives every HTTP refusal the same shape, problem+json (RFC 9457), which names field, value and remedy.

Below `/v1` the routes are those of OpenAI's clients, which know only OpenAI's shape of an error: there a refusal has that one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from schemas.bounds import cut, fitting_reason
from schemas.reasons import Reason
from services.chassis.process.redaction import redacted

PROBLEM_JSON = "application/problem+json"
REASONS_SHOWN = 20
OPENAI = "/v1/"
"""The beginning of the paths that OpenAI's clients know."""
_DETAIL_BYTES = 8000
_TITLE_BYTES = 200
_INSTANCE_BYTES = 512


class ProblemDocument(BaseModel):
    """The body of every refusal (RFC 9457); for the `responses` of routes."""

    type: str = Field(default="about:blank", description="Always about:blank, because the status says the kind.")
    title: str = Field(description="Short title of the fault.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="The fault of this request, with a remedy.")
    instance: str = Field(description="The path of the request.")
    reasons: list[Reason] = Field(
        default=[], description="Field, value and remedy of the first twenty faults; empty if no field is at fault."
    )
    reasons_left_out: int = Field(default=0, description="Number of further faults that were found.")


class Problem(Exception):
    """An error that becomes an HTTP refusal: status, title, and reasons that name field, value and remedy."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {title}: {detail}")
        self.status, self.title, self.detail = status, title, detail
        self.headers = dict(headers or {})
        self.reasons: tuple[Reason, ...] = ()
        self.left_out = 0

    @classmethod
    def of(cls, status: int, title: str, reasons: Sequence[Reason], left_out: int = 0) -> Self:
        """Return a refusal for these reasons; `left_out` is the number of further reasons that are not listed."""
        shown = [fitting_reason(reason) for reason in reasons[:REASONS_SHOWN]]
        more = left_out + len(reasons) - len(shown)
        detail = cut("; ".join(map(str, shown)), _DETAIL_BYTES - 100) + (f"; and {more} more" if more else "")
        problem = cls(status, title, detail)
        problem.reasons, problem.left_out = tuple(shown), more
        return problem

    def response(self, instance: str) -> Response:
        """Return the response with the problem document, of bounded size whatever the request contains; for a path of OpenAI's
        clients in their shape."""
        if instance.startswith(OPENAI):
            kind = "server_error" if self.status >= 500 else "invalid_request_error"
            field = self.reasons[0].field if self.reasons else None
            body_of = openai_error(cut(redacted(self.detail), _DETAIL_BYTES), kind, _code(self.title), field)
            return Response(body_of, self.status, self.headers, media_type="application/json")
        body: dict[str, object] = {
            "type": "about:blank",
            "title": cut(self.title, _TITLE_BYTES),
            "status": self.status,
            "detail": cut(redacted(self.detail), _DETAIL_BYTES),
            "instance": cut(instance, _INSTANCE_BYTES),
        }
        if self.reasons:
            body["reasons"] = [reason.model_dump() for reason in self.reasons]
        if self.left_out:
            body["reasons_left_out"] = self.left_out
        return JSONResponse(body, self.status, self.headers, media_type=PROBLEM_JSON)


class OpenAIError(BaseModel):
    """What went wrong."""

    message: str
    type: str = Field(description="invalid_request_error or server_error.")
    param: str | None = Field(description="The field at fault, if one is.")
    code: str | None = Field(description="Short name of the fault.")


class OpenAIErrorDocument(BaseModel):
    """The body of every refusal below `/v1`, as OpenAI's clients know it."""

    error: OpenAIError


def openai_error(message: str, kind: str, code: str, param: str | None = None) -> bytes:
    """Return an error in the shape that OpenAI's clients know."""
    return (
        OpenAIErrorDocument(error=OpenAIError(message=message, type=kind, param=param, code=code))
        .model_dump_json()
        .encode()
    )


def _code(title: str) -> str:
    return cut(title.lower().replace(" ", "_"), _TITLE_BYTES)


def openai_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the refusals of a route that OpenAI's clients know."""
    return {status: {"model": OpenAIErrorDocument} for status in statuses}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the refusals of a route; their media type is application/problem+json."""
    return {status: {"model": ProblemDocument} for status in statuses}
