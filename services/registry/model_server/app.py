"""The HTTP side of the process: OpenAI's routes for whoever knows the secret, and a health route for its parent."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import psutil
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from services.registry.model_server.asking import Asked, ask, chat_prompt, text_prompts
from services.registry.model_server.completions import ChatForm, Form, TextForm, parts, whole
from services.registry.model_server.errors import ApiError, invalid, model_missing
from services.registry.model_server.messages import SECRET_HEADER
from services.registry.model_server.models import ServedModel, ServedModels
from services.registry.model_server.requests import ChatRequest, CompletionRequest

_Body = TypeVar("_Body", bound=BaseModel)
_Found = TypeVar("_Found")
_LEFT = 499
"""The status of an answer that nobody waits for."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one request may be."""

    body: int = 2 * 1024 * 1024
    """Bytes of its body."""
    tokens: int = 4096
    """Tokens of an answer."""


class Guarded:
    """Middleware that lets only callers with the secret through."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._app, self._secret = app, secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = Headers(scope=scope).get(SECRET_HEADER, "")
            if not hmac.compare_digest(given.encode("utf-8", "replace"), self._secret):
                message = f"the header {SECRET_HEADER} is missing or wrong: this address serves the registry only"
                await ApiError(401, message, code="secret_wrong").response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Api:
    """The routes."""

    def __init__(self, models: ServedModels, limits: HttpLimits) -> None:
        self._models, self._limits = models, limits
        self._tokenizing = ThreadPoolExecutor(1, "tokenize")  # tokenizers do not bear two callers at once

    def app(self, secret: str) -> ASGIApp:
        """Return the application, which only callers with the secret can use."""
        routes = [
            Route("/v1/models", self._list),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/completions", self._complete, methods=["POST"]),
            Route("/health", self._health),
        ]
        handlers = {ApiError: _answered, 404: _no_route, 405: _no_route}
        return Guarded(Starlette(routes=routes, exception_handlers=handlers), secret)

    async def _list(self, request: Request) -> Response:
        listed = [
            {"id": served.name, "object": "model", "created": served.since, "owned_by": "neuroweaver"}
            for served in self._models.all
        ]
        return JSONResponse({"object": "list", "data": listed})

    async def _health(self, request: Request) -> Response:
        alive = all(served.decoder.alive for served in self._models.all)
        found = {
            "models": {
                served.name: {"open": served.decoder.open, "waiting": served.decoder.waiting} for served in self._models.all
            },
            "memory_bytes": psutil.Process().memory_info().rss,
        }
        return JSONResponse(found, 200 if alive else 503)

    async def _chat(self, request: Request) -> Response:
        body = await self._read(request, ChatRequest)
        served = self._served(body.model)
        prompt = await self._aside(chat_prompt, served, body)
        return await self._answer(request, body, ask(served, body, [prompt], self._limits.tokens), ChatForm())

    async def _complete(self, request: Request) -> Response:
        body = await self._read(request, CompletionRequest)
        served = self._served(body.model)
        prompts = await self._aside(text_prompts, served, body)
        return await self._answer(request, body, ask(served, body, prompts, self._limits.tokens), TextForm())

    async def _aside(self, do: Callable[..., _Found], *given: object) -> _Found:
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, do, *given)

    def _served(self, name: str) -> ServedModel:
        served = self._models.get(name)
        if served is None:
            raise model_missing(name)
        return served

    async def _read(self, request: Request, form: type[_Body]) -> _Body:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._limits.body:
                raise ApiError(413, f"the body is larger than {self._limits.body} bytes; shorten it", code="too_large")
        try:
            return form.model_validate_json(bytes(body))
        except ValidationError as error:
            raise invalid(error) from None

    async def _answer(self, request: Request, body: ChatRequest | CompletionRequest, asked: Asked, form: Form) -> Response:
        if body.stream:
            usage = bool(body.stream_options and body.stream_options.include_usage)
            return StreamingResponse(_until_left(asked, form, usage), media_type="text/event-stream")
        made, gone = asyncio.ensure_future(whole(asked, form)), asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait((made, gone), return_when=asyncio.FIRST_COMPLETED)
            if made.done():
                return JSONResponse(made.result())
            return Response(status_code=_LEFT)
        finally:
            asked.cancel()
            made.cancel()
            gone.cancel()


async def _until_left(asked: Asked, form: Form, usage: bool) -> AsyncIterator[bytes]:
    """The stream, whose answers end when the caller leaves."""
    try:
        async for event in parts(asked, form, usage=usage):
            yield event
    finally:
        asked.cancel()


async def _gone(request: Request) -> None:
    """Return when the caller has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _answered(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return error.response()


async def _no_route(request: Request, error: Exception) -> Response:
    known = "GET /v1/models, POST /v1/chat/completions, POST /v1/completions"
    status = getattr(error, "status_code", 404)
    return ApiError(status, f"{request.method} {request.url.path[:200]} is unknown; known are {known}").response()
