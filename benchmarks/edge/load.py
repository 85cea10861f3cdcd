"""Asks as fast as a server answers, from a process of its own that costs far less than the server does.

Written against asyncio's transports: a client library would need as much of the machine as what it measures. Prints one JSON object.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count, cycle
from typing import NamedTuple

_WARM_UP_SECONDS = 0.3
_PATIENCE_SECONDS = 30.0


class Sent(NamedTuple):
    """The result of one run of the load generator."""

    good: int
    """Number of correct answers."""
    bad: int
    seconds: float
    bytes: int
    """Size of the last body."""
    first_bad: str = ""

    @property
    def per_second(self) -> float:
        """Correct answers per second."""
        return self.good / self.seconds


class _Asking(asyncio.Protocol):
    """One connection, which sends the next request when the previous answer is complete."""

    def __init__(self, requests: Iterator[bytes], is_good: Callable[[bytes, bytes], bool]) -> None:
        self._requests, self._is_good = requests, is_good
        self._held = b""
        self.good = self.bad = self.bytes = 0
        self.first_bad = ""
        self.counting = self.ending = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(next(self._requests))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(ConnectionError(f"the server closed the connection: {exc}"))

    def data_received(self, data: bytes) -> None:
        self._held = self._held + data if self._held else data
        end = self._held.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._held[:end].lower()
        at = head.find(b"content-length: ")
        length = int(head[at + 16 :].split(b"\r", 1)[0]) if at >= 0 else 0
        whole = end + 4 + length
        if len(self._held) < whole:
            return
        body, self._held = self._held[end + 4 : whole], self._held[whole:]
        self._answered(head, body)

    def _answered(self, head: bytes, body: bytes) -> None:
        if self._is_good(head, body):
            self.good += self.counting
        else:
            self.bad += 1
            self.first_bad = self.first_bad or repr((head[:100], body[:400]))
        self.bytes = len(body)
        if not self.ending:
            self._transport.write(next(self._requests))
        elif not self.ended.done():
            self.ended.set_result(None)
            self._transport.close()


def _reads(host: str, paths: Sequence[str]) -> Iterator[bytes]:
    """Yield the paths in turns, shared by all connections, so that two of them rarely request the same one."""
    return cycle([f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n".encode() for path in paths])


def _starts(host: str, path: str, body: str) -> Iterator[bytes]:
    """Yield bodies, each with another id in the place of JOB_ID."""
    run = time.time_ns()
    for number in count():
        sent = body.replace("JOB_ID", f"start-{run}-{number}").encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
        )
        yield head.encode() + sent


def _is_200(head: bytes, _body: bytes) -> bool:
    return head.startswith(b"http/1.1 200")


def _is_accepted(head: bytes, body: bytes) -> bool:
    """Return whether the job was accepted, not only received."""
    return head.startswith(b"http/1.1 202") and b'"status":"running"' in body


async def _run(port: int, paths: Sequence[str], connections: int, seconds: float, body: str | None) -> Sent:
    host = f"127.0.0.1:{port}"
    requests = _reads(host, paths) if body is None else _starts(host, paths[0], body)
    is_good = _is_200 if body is None else _is_accepted
    loop = asyncio.get_running_loop()
    asking = [
        (await loop.create_connection(lambda: _Asking(requests, is_good), "127.0.0.1", port))[1] for _ in range(connections)
    ]
    await asyncio.sleep(_WARM_UP_SECONDS)
    begun = time.perf_counter()
    for one in asking:
        one.counting = True
    await asyncio.sleep(seconds)
    for one in asking:
        one.counting = False
    took = time.perf_counter() - begun
    for one in asking:
        one.ending = True
    async with asyncio.timeout(_PATIENCE_SECONDS):
        await asyncio.gather(*(one.ended for one in asking))
    first_bad = next((one.first_bad for one in asking if one.first_bad), "")
    return Sent(
        sum(one.good for one in asking), sum(one.bad for one in asking), took, max(one.bytes for one in asking), first_bad
    )


async def ask(port: int, paths: Sequence[str], *, connections: int, seconds: float, body: str | None = None) -> Sent:
    """Run the generator in its own process: GET `paths` in turns, or POST `body`.

    Raises RuntimeError for an incorrect answer.
    """
    given = json.dumps([port, paths, connections, seconds, body])
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.edge.load", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await child.communicate(given.encode())
    if child.returncode:
        raise RuntimeError(f"asking for {paths[0]} ended with {child.returncode}")
    sent = Sent(**json.loads(output))
    if sent.bad:
        raise RuntimeError(f"{sent.bad} answers of {paths[0]} are not as they must be; one of them: {sent.first_bad}")
    return sent


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_run(*json.load(sys.stdin)))._asdict()))
