"""One life of a process that serves a model: start, load, unload, health, end.

It ends when it is killed, when it does not answer its health route several times in a row, or when it answers what it cannot mean.
"""

import asyncio
import contextlib
import os
import secrets
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx2
from pydantic import ValidationError

from schemas.base import Frozen
from services.chassis.executor.oom import oom_kills
from services.chassis.executor.supervise import child_environment
from services.registry.deploying.faults import Died, Refused
from services.registry.model_server.messages import (
    REPLY,
    SECRET_HEADER,
    Listening,
    Load,
    Loaded,
    Refusal,
    Start,
    Unload,
    Unloaded,
)

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_LINE = 1024 * 1024
_SIGKILL = -9
COMMAND = (sys.executable, "-m", "services.registry.model_server")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a process may take, in seconds, before it counts as hung."""

    start: float = 900.0
    """To load the base model."""
    load: float = 900.0
    """To load an adapter."""
    answer: float = 300.0
    """To answer a probe."""
    health: float = 5.0
    """To answer the health route."""
    between: float = 2.0
    """Between two looks at the health route."""
    misses: int = 3
    """Looks in a row that may find no answer."""


class ModelServer:
    """A running process. All methods raise Died when it has ended."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, patience: Patience) -> None:
        self._process, self._log, self._patience = process, log, patience
        self._secret = secrets.token_urlsafe(32)
        self._kills = oom_kills()
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._ended: asyncio.Future[Died] = asyncio.get_running_loop().create_future()
        self._of_name: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._client: httpx2.AsyncClient | None = None
        self._why: tuple[str, str] | None = None
        self._tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._watch())]
        self.address = ""

    @classmethod
    async def started(
        cls, base: Path, log: Path, patience: Patience, options: Mapping[str, int], command: Sequence[str] = COMMAND
    ) -> "ModelServer":
        """Start a process and wait until its base model is loaded. Raises Refused or Died."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors, limit=_LINE,
                start_new_session=True, env={**child_environment(os.environ), **_OFFLINE},
            )  # fmt: skip
        server = cls(process, log, patience)
        try:
            server._say(Start.model_validate({"base": str(base), "secret": server._secret, **options}))
            port = await server._in_time(server._listening, patience.start, "load its base model")
        except BaseException:
            await server.kill()
            raise
        server.address = f"http://127.0.0.1:{port}"
        server._client = httpx2.AsyncClient(base_url=server.address, headers=dict(server.headers), trust_env=False)
        server._tasks.append(asyncio.ensure_future(server._look()))
        return server

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers that a request needs."""
        return ((SECRET_HEADER, self._secret),)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs, as far as is known."""
        return not self._ended.done()

    async def load(self, name: str, sha256: str, folder: Path, kind: Literal["adapter", "model"]) -> None:
        """Serve a model under a name. Raises Refused."""
        async with self._of_name[name]:
            load = Load(name=name, sha256=sha256, folder=str(folder), kind=kind)
            await self._ask(name, load, self._patience.load, f"load {name}")

    async def unload(self, name: str, seconds: float) -> None:
        """Forget a name when its answers are done, or after so many seconds; nothing is left of a process that has ended."""
        async with self._of_name[name]:
            with contextlib.suppress(Died, Refused):
                unload = Unload(name=name, seconds=seconds)
                await self._ask(name, unload, seconds + self._patience.answer, f"unload {name}")

    async def chat(self, body: Mapping[str, Any]) -> str:
        """Return the answer to a request of `POST /v1/chat/completions`."""
        if self._client is None:
            raise Died("NotAnswering", "the process does not listen yet")
        asked = asyncio.ensure_future(self._client.post("/v1/chat/completions", json=dict(body), timeout=None))
        response = await self._in_time(asked, self._patience.answer, "answer a probe")
        try:
            return str(response.raise_for_status().json()["choices"][0]["message"]["content"])
        except (httpx2.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            raise await self._end("NotAnswering", f"it answered a probe with garbage ({type(error).__name__})") from error

    async def ended(self) -> Died:
        """Wait until the process has ended, and return why."""
        return await asyncio.shield(self._ended)

    async def kill(self) -> None:
        """End the process, and wait until it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self.ended()
        for task in self._tasks[1:]:
            task.cancel()
        if self._client is not None:
            await self._client.aclose()

    async def _ask(self, name: str, command: Frozen, seconds: float, what: str) -> None:
        replied = self._waiting[name] = asyncio.get_running_loop().create_future()
        try:
            self._say(command)
            await self._in_time(replied, seconds, what)
        finally:
            self._waiting.pop(name, None)

    async def _in_time(self, awaited: "asyncio.Future[Any]", seconds: float, what: str) -> Any:
        """Return what is awaited. If the process ends, or takes longer, Died is raised, and the process is killed."""
        try:
            await asyncio.wait((awaited, self._ended), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not awaited.done():
                raise (
                    self._ended.result()
                    if self._ended.done()
                    else await self._end("NotAnswering", f"it took more than {seconds:g} s to {what}")
                )
            return awaited.result()
        except httpx2.HTTPError as error:
            raise await self._end("NotAnswering", f"it did not {what} ({type(error).__name__})") from error
        finally:
            if not awaited.done():
                awaited.cancel()

    async def _end(self, reason: str, message: str) -> Died:
        """Kill the process for a reason, and return it."""
        self._why = self._why or (reason, message)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        return await self.ended()

    def _say(self, message: Frozen) -> None:
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(message.model_dump_json().encode() + b"\n")

    async def _read(self) -> None:
        """Take the replies of the process until it closes its pipe."""
        stdout = self._process.stdout
        if stdout is None:
            raise RuntimeError("the process has no pipe of replies")
        try:
            while line := await stdout.readline():
                self._take(line)
        except (ValidationError, ValueError):
            await self._end("NotAnswering", "it sent its parent garbage")

    def _take(self, line: bytes) -> None:
        reply = REPLY.validate_json(line)
        match reply:
            case Listening():
                _settle(self._listening, reply.port)
            case Loaded() | Unloaded():
                if reply.name in self._waiting:
                    _settle(self._waiting[reply.name], None)
            case Refusal():
                refused = Refused(reply.reason, reply.message)
                waiting = self._listening if reply.name is None else self._waiting.get(reply.name)
                if waiting is not None and not waiting.done():
                    waiting.set_exception(refused)

    async def _watch(self) -> None:
        code = await self._process.wait()
        self._ended.set_result(Died(*(self._why or self._said_of(code))))

    def _said_of(self, code: int) -> tuple[str, str]:
        if code == _SIGKILL and (oom_kills() or 0) > (self._kills or 0):
            return "OutOfMemory", "the kernel killed the process because memory ran out; retire a deployment or add memory"
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return "NotAnswering", f"the process {how}; its log is {self._log}"

    async def _look(self) -> None:
        """Ask for the health again and again; kill a process that does not answer."""
        misses = 0
        while self._client is not None:
            await asyncio.sleep(self._patience.between)
            try:
                response = await self._client.get("/health", timeout=self._patience.health)
                misses = 0 if response.is_success else misses + 1
            except httpx2.HTTPError:
                misses += 1
            if misses >= self._patience.misses:
                await self._end(
                    "NotAnswering", f"it hung: its health route did not answer {misses} times, and it was killed"
                )
                return


def _settle(future: "asyncio.Future[Any]", value: object) -> None:
    if not future.done():
        future.set_result(value)
