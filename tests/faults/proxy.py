"""The way to a server, which can be cut, delayed, or swallow whatever is sent without a word."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

from sqlalchemy import make_url

Way = Literal["open", "refused", "black hole", "deaf"]
_CHUNK = 65536


class Proxy:
    """Forwards TCP connections on its own port."""

    def __init__(self, host: str, port: int, *, passes_ends: bool = True) -> None:
        """Without `passes_ends`, a client receives the server's last bytes but not the end of its connection."""
        self._target, self._passes_ends = (host, port), passes_ends
        self._way: Way = "open"
        self._delay = 0.0
        self._open = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        """Start to listen; later starts use the same port."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self._open.set()

    async def become(self, way: Way, *, delay: float = 0.0) -> None:
        """Set how connections are handled: `refused` ends all and accepts none; a `black hole` keeps and accepts them but
        forwards nothing; `deaf` is a black hole that first ends the present ones."""
        before, self._way, self._delay = self._way, way, delay
        if way == "open":
            self._open.set()
        else:
            self._open.clear()
        if way == "refused":
            await self.stop()
        elif before == "refused":
            await self.start()
        if way == "deaf" or before in (
            "black hole",
            "deaf",
        ):  # swallowed bytes are lost: a network that recovers resets such connections
            self._end_connections()

    async def stop(self) -> None:
        """End all connections and stop to listen."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._end_connections()

    def _end_connections(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._open.wait()
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(back)
        for one, other in ((reader, back), (there, writer)):
            task = asyncio.ensure_future(self._forward(one, other))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        if self._passes_ends:
            writer.transport.abort()
            self._writers.discard(writer)


@asynccontextmanager
async def proxy_to_database(url: str, *, passes_ends: bool = True) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy to a database's server that is open, for the block, and the database's URL through it."""
    server = make_url(url)
    proxy = Proxy(server.host or "", server.port or 0, passes_ends=passes_ends)
    await proxy.start()
    try:
        yield proxy, server.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
    finally:
        await proxy.stop()
