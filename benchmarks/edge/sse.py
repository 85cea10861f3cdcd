"""What a thousand readers of server-sent events cost everybody else, measured on the real orchestrator as it is deployed.

Fifty jobs are watched by twenty listeners each, and as many are watched by nobody; progress of all of them arrives at a steady
rate with listeners and without. One reader asks for one job the whole time.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle, islice
from typing import Any
from uuid import uuid4

import httpx2
import numpy as np
import psutil
from aiokafka import AIOKafkaProducer

from benchmarks.edge.servers import serving
from benchmarks.full_loop import Servers
from schemas.envelope import encode
from schemas.generate.examples import REQUEST
from schemas.progress import StepProgressed
from schemas.requests import JobRequested
from schemas.topics import PROGRESS, REQUESTS
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.publisher import make_producer, outside_event

_API = "/api/v1/training"
_PATIENCE_SECONDS = 180
_PAUSE_SECONDS = 0.02
_READY_SECONDS = 0.25
_SETTLE_SECONDS = 5.0


class Reading:
    """One caller that reads one job repeatedly, and one that checks whether the service is ready."""

    def __init__(self, port: int, job_id: str) -> None:
        self._port, self._job = port, f"{_API}/{job_id}"

    async def during(self, seconds: float) -> dict[str, float]:
        """Return the median and the 99th percentile of a read in milliseconds, and the share of checks that found the
        service ready."""
        until = time.monotonic() + seconds
        looking = asyncio.create_task(self._ask_until(until, "/api/v1/health/ready", _READY_SECONDS))
        took, answered = await self._ask_until(until, self._job, _PAUSE_SECONDS)
        if not all(answered):
            raise RuntimeError(f"{answered.count(False)} of {len(answered)} reads of {self._job} were refused")
        p50, p99 = np.percentile(took, [50, 99])
        _, ready = await looking
        return {"p50_ms": float(p50), "p99_ms": float(p99), "ready": sum(ready) / len(ready)}

    async def _ask_until(self, until: float, path: str, pause: float) -> tuple[list[float], list[bool]]:
        """Return the milliseconds of each answer on one connection, and whether it was 200."""
        took: list[float] = []
        answered: list[bool] = []
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while time.monotonic() < until:
            begun = time.perf_counter()
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            await reader.readexactly(int(length))
            took.append(1000 * (time.perf_counter() - begun))
            answered.append(b" 200 " in head[:15])
            await asyncio.sleep(pause)
        writer.close()
        return took, answered


class Jobs:
    """Jobs whose first step reports progress at a steady rate."""

    def __init__(self, producer: AIOKafkaProducer, count: int) -> None:
        self._producer = producer
        self.ids = [f"sse-{uuid4().hex}" for _ in range(count)]
        self._told = 0

    async def request(self) -> None:
        """Request all of them."""
        for job_id in self.ids:
            request = {**REQUEST, "job_id": job_id}
            await self._send(REQUESTS.name, JobRequested(job_id=job_id, request=request))
        await self._producer.flush()

    async def go_on(self, rate: float) -> None:
        """Report progress until cancelled."""
        begun, number = time.perf_counter(), 0
        while True:
            await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            self._told += 1
            number += 1
            job_id = self.ids[self._told % len(self.ids)]
            data = StepProgressed(
                job_id=job_id, step="prepare", attempt=1, kind="prepare", done=self._told, of=10**9, unit="rows"
            )
            await self._send(PROGRESS.name, data)

    async def _send(self, topic: str, data: Any) -> None:
        value, headers = encode(outside_event("benchmark", data, correlation_id=data.job_id, subject=data.job_id))
        await self._producer.send(topic, value, data.job_id.encode(), headers=headers)


class Listeners:
    """The process of the listeners."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child

    async def heard(self) -> dict[str, Any]:
        """Return what they have received so far."""
        assert self._child.stdin
        assert self._child.stdout
        self._child.stdin.write(b"\n")
        return dict(json.loads(await self._child.stdout.readline()))

    async def settled(self, count: int) -> float:
        """Return the seconds until each of them got its first event."""
        begun = time.monotonic()
        while (heard := await self.heard())["listening"] + heard["refused"] + heard["lost"] < count:
            if time.monotonic() > begun + _PATIENCE_SECONDS:
                raise RuntimeError(f"they do not all come to an end: {heard}")
            await asyncio.sleep(0.2)
        return time.monotonic() - begun


@asynccontextmanager
async def listeners(port: int, job_ids: Sequence[str]) -> AsyncIterator[Listeners]:
    """Run one listener for each of `job_ids` during the block."""
    paths = [f"{_API}/{job_id}/events" for job_id in job_ids]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.arms.listeners", str(port), json.dumps(paths),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Listeners(child)
    finally:
        assert child.stdin
        child.stdin.close()
        await child.wait()


async def measure(
    servers: Servers, *, clients: int = 1000, jobs: int = 50, rate: float = 40, seconds: float = 15
) -> dict[str, Any]:
    """Return `p50_ratio`, the time to read one job with `clients` listeners on `jobs` jobs compared with none, and the
    other figures of the run."""
    producer = make_producer(Cluster(servers.bootstrap), "benchmark")
    await producer.start()
    going_on: asyncio.Task[None] | None = None
    async with serving("orchestrator", servers.bootstrap, servers.database_url) as port:
        (process,) = (child for child in psutil.Process().children() if "orchestrator" in child.cmdline())
        try:
            told = Jobs(producer, 2 * jobs)
            await told.request()
            await _until_known(port, told.ids)
            going_on = asyncio.create_task(told.go_on(rate))
            watched = told.ids[::2]
            reading = Reading(port, watched[0])
            await reading.during(_SETTLE_SECONDS)
            none = await reading.during(seconds)
            before = _megabytes(process)
            async with listeners(port, list(islice(cycle(watched), clients))) as many:
                connecting = await many.settled(clients)
                first = await many.heard()
                used = process.cpu_times()
                found = await reading.during(seconds)
                spent = process.cpu_times()
                with_them = _megabytes(process)
                heard = await many.heard()
            await asyncio.sleep(_SETTLE_SECONDS)
            again = await reading.during(seconds)
            after = _megabytes(process)
        finally:
            if going_on is not None:
                going_on.cancel()
            await producer.stop()
    events = sum(heard["events"].values()) - sum(first["events"].values())
    return {
        "clients": clients,
        "p50_ratio": found["p50_ms"] / none["p50_ms"],
        "p99_ratio": found["p99_ms"] / none["p99_ms"],
        "p50_ratio_afterwards": again["p50_ms"] / none["p50_ms"],
        "without": none,
        "with": found,
        "afterwards": again,
        "rss_mb": {"before": before, "with": with_them, "after": after},
        "jobs": jobs,
        "changes_per_s": rate,
        "connecting_seconds": connecting,
        "events_per_s": events / seconds,
        "cpu_share": (spent.user + spent.system - used.user - used.system) / seconds,
        "listening": heard["listening"],
        "refused": heard["refused"],
        "lost": heard["lost"],
    }


async def _until_known(port: int, job_ids: Sequence[str]) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS), httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        for job_id in job_ids:
            while (await client.get(f"{_API}/{job_id}")).status_code != 200:
                await asyncio.sleep(0.1)


def _megabytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20
