"""Errors in OpenAI's form: a message, a type, the parameter at fault and a code."""

from pydantic import ValidationError
from starlette.responses import JSONResponse


class ApiError(Exception):
    """A request is answered with an error."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def response(self) -> JSONResponse:
        """Return the answer."""
        kind = "invalid_request_error" if self.status < 429 else "server_error"
        content = {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}
        headers = {"Retry-After": "1"} if self.status in (429, 503) else {}
        return JSONResponse(content, self.status, headers)


def invalid(error: ValidationError) -> ApiError:
    """Return the error of a body that is not of the form that its route reads: its first fault."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in fault["loc"]) or None
    said = "the field is unknown; leave it out" if fault["type"] == "extra_forbidden" else fault["msg"]
    return ApiError(400, f"{where or 'the body'}: {said}", param=where, code=fault["type"])


def model_missing(name: str) -> ApiError:
    """Return the error of a model that is not served."""
    return ApiError(404, f"the model {name[:300]!r} is not served here", param="model", code="model_not_found")
