"""Completes the OpenAPI document with the refusals that every route may return, in their media type."""

from collections.abc import Iterator, Mapping
from typing import Any

from services.chassis.serving.problem import OPENAI, PROBLEM_JSON, OpenAIErrorDocument, ProblemDocument

_SCHEMA, _OPENAI = ProblemDocument.__name__, OpenAIErrorDocument.__name__
_CONTENT = {PROBLEM_JSON: {"schema": {"$ref": f"#/components/schemas/{_SCHEMA}"}}}
_OPENAI_CONTENT = {"application/json": {"schema": {"$ref": f"#/components/schemas/{_OPENAI}"}}}
_OF_ALL: Mapping[str, str] = {
    "400": "The request names no host, or is not valid HTTP.",
    "421": "The host is not a name of this service.",
    "422": "The request is not valid.",
    "500": "The service has a bug; its log has the details.",
    "503": "The service is starting, or its database or broker is unreachable.",
}
_OF_WRITES: Mapping[str, str] = {
    "403": "A web page of another origin sent the request.",
    "408": "The request did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
}
_READS = ("get", "head")


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the refusals that every route may return, each as problem+json, or in OpenAI's shape."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.setdefault(_SCHEMA, ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}"))
    schemas.update(schemas[_SCHEMA].pop("$defs", {}))
    for path, method, operation in _operations(document):
        answers = operation["responses"]
        refusals = _OF_ALL if method in _READS else {**_OF_ALL, **_OF_WRITES}
        for status, description in refusals.items():
            answers.setdefault(status, {"description": description})
        for status, answer in answers.items():
            if status.isdigit() and int(status) >= 400 and not _is_own(answer):
                answer["content"] = _OPENAI_CONTENT if path.startswith(OPENAI) else _CONTENT
                answer["description"] = refusals.get(status, answer["description"])
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        yield from ((path, method, operation) for method, operation in operations.items())


def _is_own(answer: Mapping[str, Any]) -> bool:
    """Return whether a route returns its own document with a status of 400 or more, as readiness does."""
    schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
    return schema.get("$ref", "").rpartition("/")[2] not in ("", _SCHEMA, _OPENAI, "HTTPValidationError")
