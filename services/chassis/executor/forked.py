"""Supervises one child that a warm process has forked: its pipes, its signals and its end, as asyncio does it for its own children."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence

from services.chassis.process.logging import get_logger

_log = get_logger(__name__)
_START_SECONDS = 120.0
"""A warm process that has not forked within this time hangs; its imports take some seconds."""
_STATUS_SECONDS = 10.0
"""Time in which it says how its child has ended."""


class ForkedProcess:
    """A forked child; it is used as an `asyncio.subprocess.Process`."""

    def __init__(self, pid: int, stdin: asyncio.WriteTransport, said: "_Pipe") -> None:
        self.pid, self.stdin = pid, stdin
        self.returncode: int | None = None
        """Exit code, negative for a signal; None while it runs, and where its warm process did not say it."""
        self._said = said
        self._descriptor = os.pidfd_open(pid)
        self._end = asyncio.create_task(self._ended())

    async def wait(self) -> int | None:
        """Wait for its end; returns its exit code."""
        await asyncio.shield(self._end)
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal. Raises ProcessLookupError if it has ended."""
        if self._end.done():
            raise ProcessLookupError(self.pid)
        signal.pidfd_send_signal(self._descriptor, number)

    def when_ended(self, act: Callable[[], None]) -> None:
        """Call `act` when it has ended."""
        self._end.add_done_callback(lambda _: act())

    async def _ended(self) -> None:
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._descriptor, gone.set)
        try:
            await gone.wait()
            line = await self._said.line(_STATUS_SECONDS)
            self.returncode = (
                int(line) if line else -signal.SIGKILL
            )  # the kernel kills the children of a warm process that ends
        except TimeoutError:
            _log.warning("the warm process hangs and does not say how its child has ended", pid=self.pid)
        finally:
            loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._said.close()


class _Pipe:
    """The end of a pipe that is read."""

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.BaseTransport) -> None:
        self._reader, self._transport = reader, transport

    @classmethod
    async def open(cls, descriptor: int) -> "_Pipe":
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
        )
        return cls(reader, transport)

    async def line(self, seconds: float) -> bytes:
        """Return the next line, empty at the end. Raises TimeoutError."""
        return await asyncio.wait_for(self._reader.readline(), seconds)

    def close(self) -> None:
        self._transport.close()


async def forked(orders: socket.socket, changes: Mapping[str, str], output: int, kept: Sequence[int]) -> ForkedProcess:
    """Order a child with these changed variables, this output and these descriptors, its channel first, and wait until it is there.

    Raises OSError, ValueError or TimeoutError if it does not come. One that comes too late gets no task, and ends.
    """
    stdin, writes = os.pipe()
    reads, answer = os.pipe()
    said = await _Pipe.open(reads)
    try:
        try:
            socket.send_fds(orders, [json.dumps(dict(changes)).encode()], [stdin, output, answer, *kept])
        finally:
            os.close(stdin)
            os.close(answer)
        pid = int(await said.line(_START_SECONDS))
        given, _ = await asyncio.get_running_loop().connect_write_pipe(
            asyncio.BaseProtocol, os.fdopen(os.dup(writes), "wb", 0)
        )
        try:
            return ForkedProcess(pid, given, said)
        except OSError:
            given.close()
            raise
    except BaseException:
        said.close()
        raise
    finally:
        os.close(writes)
