"""How a request comes to a server and its answer back, whatever the server does; servers are stand-ins with real sockets."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx2
import pytest
from fastapi import FastAPI

from services.chassis.serving.problem import Problem
from services.registry.calling import forwarding
from services.registry.calling.answers import PIECE_BYTES, Answered, NotAnAnswer, Pieces
from services.registry.calling.forwarding import Forwarder
from services.registry.calling.routes import calling_router
from services.registry.calling.routing import Canary, Routing, RoutingTable, Server
from services.registry.calling.traffic import Step
from services.registry.shadowing.sending import Shadows
from tests.model_servers import Behaviour, ModelServer


class FixedRouting(Routing):
    """A table that no database changes; a test may."""

    def __init__(self, *servers: Server, canary: Canary | None = None) -> None:
        super().__init__(cast(Any, None), cast(Any, None), cast(Any, None))
        canaries = {} if canary is None else {"support": canary}
        empty = RoutingTable.of(iter(()))
        self.table = RoutingTable({"support": servers}, canaries, empty.rollouts, frozenset(["support"]), {}, {})
        self.looks = 0

    async def refresh(self) -> None:
        self.looks += 1


@asynccontextmanager
async def servers(*behaviours: Behaviour) -> AsyncIterator[list[Server]]:
    """Run servers for versions 1.0.0, 2.0.0, ..."""
    running = [ModelServer(f"router@{number}.0.0", how) for number, how in enumerate(behaviours, 1)]
    for one in running:
        await one.start()
    try:
        yield [Server("support", number, one.served, one.address, ()) for number, one in enumerate(running, 1)]
    finally:
        await asyncio.gather(*(one.stop() for one in running))


def callers(routing: Routing, shadows: Shadows | None = None) -> httpx2.AsyncClient:
    """Return a client of the address for callers."""
    app = FastAPI()
    app.include_router(calling_router(Forwarder(routing, shadows=shadows)))

    async def refused(_request: object, error: Exception) -> Any:
        assert isinstance(error, Problem)
        return error.response("/v1/chat/completions")

    app.add_exception_handler(Problem, refused)
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://callers")


async def ask(client: httpx2.AsyncClient, **fields: Any) -> httpx2.Response:
    body = {"model": "support", "messages": [{"role": "user", "content": "Hello"}], **fields}
    return await client.post("/v1/chat/completions", json=body)


GONE = Server("support", 9, "router@9.0.0", "http://127.0.0.1:9", ())


@pytest.mark.parametrize("how", [Behaviour(status=500), Behaviour(status=503), Behaviour(status=404), None])
async def test_a_server_that_does_not_answer_is_replaced_by_the_next_one_and_the_caller_notices_nothing(
    how: Behaviour | None,
) -> None:
    async with (
        servers(*([how] if how else []), Behaviour()) as running,
        callers(FixedRouting(*([] if how else [GONE]), *running)) as client,
    ):
        for stream in (False, True):
            answer = await ask(client, stream=stream)
            assert answer.status_code == 200
            assert answer.headers["x-neuroweaver-version"] == running[-1].served


async def test_what_no_server_answers_is_told_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "PATIENCE_SECONDS", 0.2)
    routing = FixedRouting(GONE)
    async with callers(routing) as client:
        answer = await ask(client)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_answered")
    assert routing.looks > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_of_the_server_is_the_callers_and_is_not_sent_again(stream: bool) -> None:
    async with servers(Behaviour(status=422), Behaviour()) as running, callers(FixedRouting(*running)) as client:
        answer = await ask(client, stream=stream)
    assert (answer.status_code, answer.json()) == (422, {"error": {"message": "no"}})


async def test_a_stream_that_breaks_off_ends_with_an_error() -> None:
    async with servers(Behaviour(breaks_off=True)) as running, callers(FixedRouting(*running)) as client:
        answer = await ask(client, stream=True)
    *pieces, last = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert len(pieces) == 1
    assert last["error"]["code"] == "broken_off"


@pytest.mark.parametrize(("percent", "of"), [(1, 200), (10, 100), (50, 10), (100, 5)])
async def test_a_canary_gets_its_share_exactly(percent: float, of: int) -> None:
    step = Step("support", 2, percent, target=True)
    routing = FixedRouting(GONE, canary=Canary(percent, GONE._replace(generation=2, step=step)))
    first = Counter(server and server.generation for server in (routing.pick("support", 0) for _ in range(of)))
    assert first[2] == of * percent / 100
    again = [routing.pick("support", tries) for tries in (1, 2, 3)]
    assert [server and server.generation for server in again] == [9, 2, 9]


async def test_what_a_canary_does_not_answer_is_counted_against_it_and_answered_by_the_version_before() -> None:
    async with servers(Behaviour(), Behaviour(status=500)) as (good, bad):
        steps = [Step("support", 2, 50, target=target) for target in (False, True)]
        routing = FixedRouting(good._replace(step=steps[0]), canary=Canary(50, bad._replace(step=steps[1])))
        async with callers(routing) as client:
            answers = [await ask(client) for _ in range(10)]
    assert {answer.headers.get("x-neuroweaver-version") for answer in answers} == {good.served}
    counts = {step: routing.counts.of(step) for step in steps}
    assert [(count.requests, count.errors, sum(count.latencies)) for count in counts.values()] == [(10, 0, 10), (5, 5, 0)]


@pytest.mark.parametrize("cuts", [1, 2, 3, 7, 1000])
def test_pieces_are_whole_wherever_the_network_cut_them(cuts: int) -> None:
    stream = b'data: {"a": 1}\r\n\r\n: alive\n\ndata: {"b": 2}\n\ndata:[DONE]\n\n'
    pieces = Pieces()
    found = [piece for at in range(0, len(stream), cuts) for piece in pieces.of(stream[at : at + cuts])]
    assert found == [b'{"a": 1}', b'{"b": 2}', b"[DONE]"]


def test_a_piece_without_end_is_none() -> None:
    with pytest.raises(NotAnAnswer):
        list(Pieces().of(b"x" * (PIECE_BYTES + 1)))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"7", b"\xff"])
def test_what_is_no_answer_is_none(body: bytes) -> None:
    with pytest.raises(NotAnAnswer):
        Answered("id").whole(body)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"content": "Yes."}, True), ({"content": " \n"}, False), ({"content": None}, False), ({}, False), ("Yes.", False),
        ({"content": None, "tool_calls": [{"id": "1"}]}, True),
    ],
)  # fmt: skip
def test_an_answer_is_empty_if_it_has_neither_text_nor_a_tool_call(message: object, says: bool) -> None:
    answered = Answered("id")
    whole = answered.whole(
        json.dumps({"id": "x", "choices": [{"message": message}], "usage": {"prompt_tokens": -1}}).encode()
    )
    assert json.loads(whole)["id"] == "id"
    assert (answered.says, answered.usage) == (says, {})
