"""The routes that OpenAI's clients know, outside `/api/v1`: the address for callers of every deployment."""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from services.chassis.serving.problem import openai_errors
from services.chassis.serving.web.offloading import in_thread_if_large
from services.registry.calling.asked import REQUEST_BYTES, ChatAsked, read
from services.registry.calling.forwarding import Forwarder
from services.registry.calling.responses import ForwardedAnswer

_ANSWER: dict[str, Any] = {
    "description": "The answer; with `stream` as server-sent events, the last of which is `[DONE]`. Its headers x-neuroweaver-version and "
    "x-neuroweaver-response name the version that answered and the response.",
    "content": {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": {"type": "string"}}},
}


class ServedModel(BaseModel):
    """A name that callers can ask."""

    id: str
    object: str = "model"
    created: int = Field(default=0, description="Always 0.")
    owned_by: str = Field(description="The deployment that answers.")


class ServedModels(BaseModel):
    """All names that callers can ask."""

    object: str = "list"
    data: list[ServedModel]


def calling_router(forwarder: Forwarder) -> APIRouter:
    """Return the routes for callers."""
    api = APIRouter(prefix="/v1", tags=["callers"])

    @api.post(
        "/chat/completions",
        summary="Answer a conversation",
        response_class=Response,
        responses={200: _ANSWER, **openai_errors(404, 422, 503)},
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": ChatAsked.model_json_schema()}}}
        },
        max_body_size=REQUEST_BYTES,
    )
    async def answered(request: Request) -> Response:
        """Leads the request to the version that `model` names: that of a deployment, of an alias, or itself."""
        body = await request.body()
        return ForwardedAnswer(forwarder, await in_thread_if_large(len(body), read, body))

    @api.get("/models", summary="List the names that are answered", responses=openai_errors(422))
    async def models() -> ServedModels:
        """Deployments, versions that one of them serves, and aliases that name such a version."""
        names = sorted(forwarder.routing.table.names().items())
        return ServedModels(data=[ServedModel(id=name, owned_by=owner) for name, owner in names])

    return api
