"""A driver whose servers speak OpenAI's API over real sockets and hold no model: the stand-in for whatever serves versions."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from services.registry.deploying.driver import Observed, ServingState, Target
from tests.toy import until


@dataclass
class Behaviour:
    """How the servers of a version behave; a test may change it while they run."""

    state: ServingState = "ready"
    reason: str = "Ready"
    says: str | None = None
    """What it answers; None: its name and the question."""
    status: int = 200
    seconds: float = 0.0
    """How long an answer takes."""
    breaks_off: bool = False
    """Whether a stream ends after its first piece."""


class ModelServer:
    """One server on a port of its own."""

    def __init__(self, served: str, behaviour: Behaviour) -> None:
        self.served, self.behaviour, self.asked = served, behaviour, 0
        app = Starlette(routes=[Route("/v1/chat/completions", self._answer, methods=["POST"])])
        config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off", timeout_graceful_shutdown=5)
        self._server = uvicorn.Server(config)
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen."""
        self._task = asyncio.create_task(self._server.serve())
        await until(lambda: self._server.started)

    async def stop(self) -> None:
        """Finish what has begun, and take no more."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    async def _answer(self, request: Request) -> Response:
        self.asked += 1
        asked, how = await request.json(), self.behaviour
        await asyncio.sleep(how.seconds)
        if asked["model"] != self.served or how.status != 200:
            return JSONResponse({"error": {"message": "no"}}, 404 if how.status == 200 else how.status)
        said = f"{self.served} hears {asked['messages'][-1]['content']}" if how.says is None else how.says
        if asked.get("stream"):
            return StreamingResponse(_pieces(self.served, said, how), media_type="text/event-stream")
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        return JSONResponse(
            {"id": "its-own", "object": "chat.completion", "model": self.served, "choices": [choice], "usage": usage}
        )


async def _pieces(served: str, said: str, how: Behaviour) -> AsyncIterator[bytes]:
    for word in said.split(" "):
        piece: dict[str, Any] = {
            "id": "its-own",
            "model": served,
            "choices": [{"index": 0, "delta": {"content": f"{word} "}}],
        }
        yield f"data: {json.dumps(piece)}\n\n".encode()
        if how.breaks_off:
            raise ConnectionResetError
    yield b"data: [DONE]\n\n"


@dataclass
class _Slot:
    target: Target
    server: ModelServer
    since: datetime


@dataclass
class StandIn:
    """The driver. It outlives the registry's restarts, so that a test has it at hand; its slots do not."""

    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    """By version."""
    slots: dict[tuple[str, str], _Slot] = field(default_factory=dict)
    garbage: Any = None
    """What it answers instead of its observations, if anything."""
    ensured: list[str] = field(default_factory=list)
    """Versions that it was asked for anew, in order."""
    stopping: set["asyncio.Task[None]"] = field(default_factory=set)

    def of(self, version: str) -> Behaviour:
        """Return how a version behaves."""
        return self.behaviours.setdefault(version, Behaviour())

    async def ensure(self, target: Target) -> None:
        """Serve a target."""
        if (target.deployment, target.slot) not in self.slots:
            server = ModelServer(target.served, self.of(target.version))
            await server.start()
            self.ensured.append(target.version)
            self.slots[target.deployment, target.slot] = _Slot(target, server, datetime.now(UTC))

    async def observed(self) -> Sequence[Observed]:
        """Return every slot."""
        if self.garbage is not None:
            if isinstance(self.garbage, Exception):
                raise self.garbage
            found: Sequence[Observed] = self.garbage
            return found
        return [_observed(slot) for slot in self.slots.values()]

    async def remove(self, deployment: str, slot: str, drain_seconds: float) -> None:
        """Stop serving a slot."""
        gone = self.slots.pop((deployment, slot), None)
        if gone is not None:
            stopping = asyncio.create_task(gone.server.stop())
            self.stopping.add(stopping)
            stopping.add_done_callback(self.stopping.discard)

    async def stand_by(self, drain_seconds: float) -> None:
        """Stop everything in time."""
        for deployment, slot in list(self.slots):
            await self.remove(deployment, slot, drain_seconds)

    async def close(self) -> None:
        """Stop everything."""
        for deployment, slot in list(self.slots):
            await self.remove(deployment, slot, 0)
        await asyncio.gather(*self.stopping)

    def asked(self, version: str) -> int:
        """Return how many requests the servers of a version got that still run."""
        return sum(slot.server.asked for slot in self.slots.values() if slot.target.version == version)


def _observed(slot: _Slot) -> Observed:
    how, target = slot.server.behaviour, slot.target
    ready = how.state == "ready"
    return Observed(
        deployment=target.deployment, slot=target.slot, served=target.served, sha256=target.artifact.sha256, state=how.state,
        reason=how.reason, message="" if ready else "as the test says", address=slot.server.address if ready else None,
        since=slot.since,
    )  # fmt: skip
