"""A thousand callers that trickle, or say nothing, or read nothing, cost nobody else an answer, and each of them has an end."""

import asyncio
import json
import logging
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from services.chassis.process.logging import _RepeatFilter
from services.chassis.process.metrics import REGISTRY
from services.chassis.serving.http import application
from services.chassis.serving.web import server as listening
from services.chassis.serving.web.connections import SPARE
from services.chassis.serving.web.settings import HttpSettings
from tests.toy import until

READY = b"GET /api/v1/health/ready HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
LONG = 600.0
Caller = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def routes() -> FastAPI:
    """Health, and a stream that is endless."""
    app = application([])

    async def forever() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000
            await asyncio.sleep(0)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(forever())

    return app


@asynccontextmanager
async def serving(**given: Any) -> AsyncIterator[int]:
    """The port of a server whose times are long, but for those given."""
    times = dict.fromkeys(("http_header_seconds", "http_body_seconds", "http_unread_seconds"), LONG)
    settings = HttpSettings(**{**times, "http_connections": 20, "http_idle_seconds": 600, **given})
    config = listening.server_config(routes(), settings, graceful_seconds=1)
    config.host, config.port = "127.0.0.1", 0
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await running


async def call(port: int, said: bytes) -> Caller:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    return reader, writer


async def answer(caller: Caller) -> tuple[int, dict[str, Any]]:
    """Status and body of one answer."""
    head = await asyncio.wait_for(caller[0].readuntil(b"\r\n\r\n"), 60)
    (length,) = (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    return int(head.split()[1]), json.loads(await caller[0].readexactly(length))


async def over(caller: Caller) -> bytes:
    """What comes until the connection is closed by the other side."""
    try:
        return await asyncio.wait_for(caller[0].read(), 60)
    except ConnectionResetError:
        return b""


def given_up(cause: str) -> float:
    return REGISTRY.get_sample_value("neuroweaver_http_given_up_total", {"why": cause}) or 0.0


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: 127", READY[:-2], READY])
async def test_headers_that_do_not_come_end_the_connection(said: bytes) -> None:
    async with serving(http_header_seconds=0.3) as port:
        caller = await call(port, said)
        if said.startswith(READY):
            assert (await answer(caller))[0] == 200
            caller[1].write(b"GET /api")
        closed = await over(caller)
        assert closed.startswith(b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json")
        assert b"headers did not arrive in time" in closed


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"],
)
async def test_a_body_that_does_not_come_ends_the_connection(head: bytes) -> None:
    async with serving(http_body_seconds=0.3) as port:
        said = b"POST /api/v1/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n" + head
        assert b"408 Request Timeout" in await over(await call(port, said))


async def test_a_body_that_nobody_waits_for_ends_the_connection_too() -> None:
    async with serving(http_body_seconds=0.3) as port:
        caller = await call(port, b"POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 36000000\r\n\r\n{")
        assert (await answer(caller))[0] == 415
        assert await over(caller) == b""


async def test_a_body_that_was_refused_and_came_whole_leaves_the_connection_usable() -> None:
    async with serving(http_body_seconds=1.0) as port:
        head = b"POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 2000000\r\n\r\n"
        caller = await call(port, head)
        assert (await answer(caller))[0] == 413
        caller[1].write(b"x" * 2_000_000)
        await caller[1].drain()
        for _ in range(3):
            caller[1].write(READY)
            assert (await answer(caller))[0] == 200
            await asyncio.sleep(0.4)  # longer in all than a body may take
        caller[1].close()


async def test_an_idle_connection_is_closed() -> None:
    async with serving(http_idle_seconds=1) as port:
        caller = await call(port, READY)
        assert (await answer(caller))[0] == 200
        assert await over(caller) == b""


async def test_a_caller_that_does_not_read_its_answer_is_given_up() -> None:
    before = given_up("unread answer")
    async with serving(http_unread_seconds=0.3) as port:
        caller = await call(port, b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await until(lambda: given_up("unread answer") > before)
        caller[1].close()


@pytest.mark.parametrize(
    "said",
    [b"", b"GET / HTTP/1.1\r\nHost: 127", b"POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
     b"Content-Length: 99\r\n\r\n{"],
)  # fmt: skip
async def test_with_every_place_taken_by_callers_that_trickle_everybody_else_is_answered(
    said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = given_up("made room")
    async with serving() as port:
        slow = [await call(port, said) for _ in range(100)]
        for _ in range(5):
            caller = await call(port, READY)
            assert await answer(caller) == (200, {"status": "ready", "services": {}})
            caller[1].close()
        assert given_up("made room") - before >= 80
        for caller in slow:
            caller[1].close()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) <= 2


async def test_with_every_place_at_work_health_is_answered_and_the_rest_is_told_to_come_back() -> None:
    async with serving() as port:
        busy = [await call(port, b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") for _ in range(20)]
        for caller in busy:
            await caller[0].readexactly(100)
        for _ in range(2 * SPARE):
            caller = await call(port, READY)
            assert (await answer(caller))[0] == 200
            assert await over(caller) == b""
            caller = await call(port, READY.replace(b"/api/v1/health/ready", b"/api/v1/training"))
            status, document = await answer(caller)
            assert (status, document["title"]) == (503, "Too many connections")
            assert await over(caller) == b""
        quiet = [await call(port, b"") for _ in range(2 * SPARE)]
        assert (await answer(await call(port, READY)))[0] == 200
        for caller in busy + quiet:
            caller[1].close()


def test_connections_stay_below_what_the_process_may_open_and_streams_leave_a_quarter_of_them() -> None:
    settings = HttpSettings()
    for files, limit, streams in ((1024, 688, 516), (65_536, settings.http_connections, 1500), (100, 16, 12)):
        found = listening.places(settings, files)
        assert (found.limit, found.streams) == (limit, streams)


def test_the_process_asks_for_as_many_files_as_it_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert listening._files() == 4096
    assert asked == [(4096, 4096)]


def test_what_libraries_repeat_is_logged_once_in_a_while() -> None:
    once = _RepeatFilter()
    for name in ("asyncio", "uvicorn.error", "aiokafka.client"):
        records = [logging.LogRecord(name, logging.ERROR, "", 0, f"{name} repeats itself", (), None)] * 1000
        assert sum(once.filter(record) for record in records) == 1
