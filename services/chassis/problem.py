"""Why: every refusal over HTTP has one shape, problem+json (RFC 9457), and names field, value and remedy."""

from collections.abc import Mapping, Sequence

from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from schemas.reasons import Reason
from services.chassis.redaction import redacted

_PROBLEM = "application/problem+json"


class ProblemDocument(BaseModel):
    """What every refusal looks like (RFC 9457); for the `responses` of routes."""

    type: str = Field(default="about:blank", description="Always about:blank: the status says the kind.")
    title: str = Field(description="What is wrong, in few words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong with this request, and what to do.")
    instance: str = Field(description="The path that was asked for.")
    reasons: list[Reason] = Field(default=[], description="Field, value and remedy of each fault, where there are such.")


class Problem(Exception):
    """An answer that refuses: status, what is wrong, and reasons that name field, value and remedy."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        reasons: Sequence[Reason] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {title}: {detail}")
        self.status, self.title, self.detail = status, title, detail
        self.reasons, self.headers = tuple(reasons), dict(headers or {})

    def response(self, instance: str) -> Response:
        """The problem document."""
        body: dict[str, object] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": redacted(self.detail),
            "instance": instance,
        }
        if self.reasons:
            body["reasons"] = [reason.model_dump() for reason in self.reasons]
        return JSONResponse(body, self.status, self.headers, media_type=_PROBLEM)
