"""Reads what a caller asks, and writes it for the server that answers."""

import json
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.reasons import reasons_of
from services.chassis.serving.problem import Problem
from services.registry.queries import MODEL_ID

REQUEST_BYTES = 1024 * 1024
"""The most bytes of a request: a long conversation."""


class ChatAsked(BaseModel):
    """A request for the next message of a conversation, in OpenAI's shape. Every other field is passed on to the server."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(
        pattern=MODEL_ID, description="A deployment, or `model@version` or `model@alias` that a deployment serves."
    )
    messages: list[dict[str, Any]] = Field(min_length=1, description="The conversation; its server reads the messages.")
    stream: bool = Field(
        default=False, strict=True, description="Whether the answer comes in pieces, as server-sent events."
    )


class Asked(NamedTuple):
    """A request that was read."""

    model: str
    stream: bool
    body: dict[str, Any]
    size: int
    """Bytes of the request."""


def read(body: bytes) -> Asked:
    """Return what is asked. Raises a 422 Problem for what is no request."""
    try:
        asked = ChatAsked.model_validate_json(body)
    except ValidationError as error:
        raise Problem.of(422, "The request is not valid", reasons_of(error)) from None
    return Asked(asked.model, asked.stream, json.loads(body), len(body))


def written(asked: Asked, served: str) -> bytes:
    """Return the request for the server that calls the version `served`."""
    return json.dumps({**asked.body, "model": served}, ensure_ascii=False).encode()
