"""Runs the server and carries out what the parent asks: load, unload; each is answered on the pipe of replies."""

import asyncio
import logging
import os
import socket
import sys
import threading
from pathlib import Path
from typing import TextIO

import uvicorn

from schemas.base import Frozen
from services.registry.model_server.app import Api, HttpLimits
from services.registry.model_server.decoder import Limits
from services.registry.model_server.messages import (
    COMMAND,
    Listening,
    Load,
    Loaded,
    Refusal,
    Start,
    Unload,
    Unloaded,
)
from services.registry.model_server.models import Refused, ServedModels

_HOST = "127.0.0.1"
_BACKLOG = 256


class _Replies:
    """The pipe to the parent."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._lock = file, threading.Lock()

    def say(self, reply: Frozen) -> None:
        """Write one line. The process ends when nobody reads it."""
        with self._lock:
            try:
                self._file.write(reply.model_dump_json() + "\n")
                self._file.flush()
            except OSError:
                os._exit(1)


def serve(start: Start, lanes: int, file: TextIO) -> None:
    """Load the base model, listen, and serve until the parent is gone."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    replies = _Replies(file)
    limits = Limits(start.rows, start.cells, start.waiting)
    models = ServedModels(Path(start.base), lanes, limits)
    try:
        models.load_base()
        listener = _listener(start.port)
    except Refused as refused:
        replies.say(Refusal(name=None, reason=refused.reason, message=str(refused)))
        return
    replies.say(Listening(port=listener.getsockname()[1]))
    asyncio.run(_Process(start, models, replies).run(listener))


def _listener(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
    except OSError as error:
        what = (
            f"port {port} of {_HOST} cannot be had ({error.strerror}); stop what listens there, or let the port be chosen"
        )
        raise Refused("PortTaken", what) from error
    return listener


class _Process:
    def __init__(self, start: Start, models: ServedModels, replies: _Replies) -> None:
        self._start, self._models, self._replies = start, models, replies
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, listener: socket.socket) -> None:
        """Serve HTTP, and what the parent asks."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._listen, args=(loop,), name="parent", daemon=True).start()
        app = Api(self._models, HttpLimits(self._start.body, self._start.tokens)).app(self._start.secret)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, ws="none", lifespan="off", backlog=_BACKLOG
        )
        await uvicorn.Server(config).serve(sockets=[listener])

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        for line in sys.stdin.buffer:
            loop.call_soon_threadsafe(self._begin, line)
        os._exit(0)

    def _begin(self, line: bytes) -> None:
        task = asyncio.ensure_future(self._do(line))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, line: bytes) -> None:
        match COMMAND.validate_json(line):
            case Load() as wanted:
                await self._load(wanted)
            case Unload() as wanted:
                await self._unload(wanted)

    async def _load(self, wanted: Load) -> None:
        try:
            given = (wanted.name, wanted.sha256, Path(wanted.folder), wanted.kind)
            await asyncio.to_thread(self._models.load, *given)
        except Refused as refused:
            self._replies.say(Refusal(name=wanted.name, reason=refused.reason, message=str(refused)))
        else:
            self._replies.say(Loaded(name=wanted.name))

    async def _unload(self, wanted: Unload) -> None:
        served = self._models.get(wanted.name)
        if served is not None:
            await asyncio.to_thread(served.decoder.drain, wanted.seconds)
            await asyncio.to_thread(self._models.remove, wanted.name)
        self._replies.say(Unloaded(name=wanted.name))
