"""Streams over real sockets: how many there are, how they end, and what a caller costs that does not read or comes and goes."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from services.chassis.process.metrics import REGISTRY
from services.chassis.serving.http import application
from services.chassis.serving.web import server as listening
from services.chassis.serving.web import streams
from services.chassis.serving.web.settings import HttpSettings
from services.chassis.serving.web.streams import EventStream
from tests.toy import until

ASK = b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
Caller = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Saying:
    """A source that says what it is given; `taken` counts what was asked of it."""

    def __init__(self, hub: "Hub") -> None:
        self.woken, self.taken, self._hub = asyncio.Event(), 0, hub
        self.pending: list[bytes] = [b"data: hello\n\n"]
        self.over = False

    def take(self) -> bytes | None:
        self.taken += 1
        said, self.pending = b"".join(self.pending), []
        return said or (None if self.over else b"")

    def say(self, said: bytes) -> None:
        self.pending = [said]
        self.woken.set()

    def leave(self) -> None:
        self._hub.sources.remove(self)


@dataclass
class Hub:
    """Everybody who listens, and the server they listen to."""

    sources: list[Saying] = field(default_factory=list)
    port: int = 0
    server: Any = None


@asynccontextmanager
async def serving(**given: Any) -> AsyncIterator[Hub]:
    hub = Hub()
    app: FastAPI = application([])

    @app.get("/stream", status_code=200, response_class=EventStream)
    async def stream() -> EventStream:
        hub.sources.append(Saying(hub))
        return EventStream(hub.sources[-1])

    config = listening.server_config(app, HttpSettings(**given), graceful_seconds=60)
    config.host, config.port = "127.0.0.1", 0
    hub.server = uvicorn.Server(config)
    running = asyncio.create_task(hub.server.serve())
    try:
        await until(lambda: hub.server.started)
        hub.port = hub.server.servers[0].sockets[0].getsockname()[1]
        yield hub
    finally:
        hub.server.should_exit = True
        await asyncio.wait_for(running, 50)


async def call(hub: Hub, said: bytes = ASK) -> Caller:
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    writer.write(said)
    return reader, writer


async def listen(hub: Hub) -> Caller:
    """A caller who heard the first event."""
    caller = await call(hub)
    await asyncio.wait_for(caller[0].readuntil(b"data: hello\n\n"), 60)
    return caller


def open_streams() -> float:
    return REGISTRY.get_sample_value("neuroweaver_http_streams") or 0.0


async def test_one_stream_too_many_is_told_to_come_back_and_others_are_answered() -> None:
    async with serving(http_connections=20, http_streams=3) as hub:
        callers = [await listen(hub) for _ in range(3)]
        assert open_streams() == 3
        late = await call(hub)
        head = await asyncio.wait_for(late[0].readuntil(b"\r\n\r\n"), 60)
        assert head.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 5" in head.lower()
        assert b"NEUROWEAVER_HTTP_STREAMS" in await late[0].readuntil(b"}")
        late[1].write(b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert (await late[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert len(hub.sources) == 3
        callers.pop()[1].close()
        await until(lambda: len(hub.sources) == 2)
        callers.append(await listen(hub))
        for _, writer in (*callers, late):
            writer.close()
        await until(lambda: not hub.sources and open_streams() == 0)


async def test_a_server_that_shuts_down_ends_its_streams_in_words_and_waits_for_nobody_who_does_not_read() -> None:
    async with serving() as hub:
        reading, silent = await listen(hub), await listen(hub)
        deaf = hub.sources[-1]
        for _ in range(100):  # until the socket takes no more
            taken = deaf.taken
            deaf.say(b"x" * 1_000_000)
            await asyncio.sleep(0.01)
            if deaf.taken == taken:
                break
        hub.server.should_exit = True
        rest = await asyncio.wait_for(reading[0].read(), 60)
        assert b": the service stops" in rest
        assert rest.endswith(b"0\r\n\r\n")
        await until(lambda: not hub.sources)
        silent[1].close()


async def test_of_a_caller_that_does_not_read_no_more_is_kept_than_its_socket_takes() -> None:
    async with serving(http_unread_seconds=600) as hub:
        caller = await listen(hub)
        (source,) = hub.sources
        for _ in range(200):
            source.say(b"x" * 200_000)
            await asyncio.sleep(0)
        await until(lambda: bool(source.pending))
        (connection,) = hub.server.server_state.connections
        kept = connection.transport.get_write_buffer_size()
        assert kept < 500_000
        source.say(b"data: the latest\n\n")
        heard = bytearray()
        while b"the latest" not in heard:
            heard += await asyncio.wait_for(caller[0].read(2**20), 60)
        assert len(heard) < 200 * 200_000
        caller[1].close()


async def test_callers_that_come_and_go_leave_nothing_behind() -> None:
    async with serving() as hub:
        (await listen(hub))[1].close()
        await until(lambda: not hub.sources)
        tasks = len(asyncio.all_tasks())
        connections = weakref.WeakSet[Any]()
        gc.disable()  # it seldom looks, so nothing may wait for it
        for _ in range(10):
            callers = [await listen(hub) for _ in range(20)]
            callers += [await call(hub) for _ in range(5)]  # these do not even wait for the answer
            connections.update(hub.server.server_state.connections)
            for _, writer in callers:
                writer.close()
        await until(lambda: not hub.sources and not hub.server.server_state.connections)
        await until(lambda: not connections)
        gc.enable()
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        assert not hub.server.server_state.tasks
        assert open_streams() == 0


async def test_a_stream_without_news_says_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "ALIVE_SECONDS", 0.1)
    async with serving() as hub:
        reader, writer = await listen(hub)
        for _ in range(3):
            await asyncio.wait_for(reader.readuntil(b": ping\n\n"), 60)
        writer.close()


async def test_a_stream_ends_with_its_source_and_the_connection_is_used_again() -> None:
    async with serving() as hub:
        reader, writer = await listen(hub)
        hub.sources[0].over = True
        hub.sources[0].woken.set()
        assert await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 60)
        writer.write(ASK)
        await asyncio.wait_for(reader.readuntil(b"data: hello\n\n"), 60)
        writer.close()


async def test_head_is_answered_and_listens_to_nothing() -> None:
    async with serving() as hub:
        reader, writer = await call(hub, ASK.replace(b"GET", b"HEAD"))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        assert b"text/event-stream" in head
        await until(lambda: not hub.sources)
        writer.close()
