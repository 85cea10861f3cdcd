"""Why: what a thousand readers of server-sent events cost everybody else, measured on the real orchestrator as it is deployed.

Fifty jobs are watched by twenty listeners each, and as many are watched by nobody; progress of all of them arrives at a steady
rate with listeners and without. One reader asks for one job the whole time.
"""

import argparse
import asyncio
import json
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import psutil
from aiokafka import AIOKafkaProducer

from benchmarks.full_loop import Servers
from schemas.envelope import encode
from schemas.generate.examples import REQUEST
from schemas.progress import StepProgressed
from schemas.requests import JobRequested
from schemas.topics import PROGRESS, REQUESTS
from services.chassis import topics
from services.chassis.cluster import Cluster
from services.chassis.devstack.settings import DevStackSettings
from services.chassis.devstack.stack import running
from services.chassis.publisher import make_producer, outside_event

_API = "/api/v1/training"
_PATIENCE_SECONDS = 180
_PAUSE_SECONDS = 0.02
_READY_SECONDS = 0.25
_SETTLE_SECONDS = 5.0


class Reading:
    """One caller that asks for one job again and again, and one that asks whether the service is ready."""

    def __init__(self, base: str, job_id: str) -> None:
        self._base, self._job_id = base, job_id

    async def during(self, seconds: float) -> dict[str, float]:
        """Milliseconds of a read at the median and the 99th percentile, and the share of looks that found the service ready."""
        took: list[float] = []
        ready: list[bool] = []
        until = time.monotonic() + seconds
        async with httpx.AsyncClient(base_url=self._base, timeout=60) as client:

            async def look() -> None:
                while time.monotonic() < until:
                    ready.append((await client.get("/api/v1/health/ready")).status_code == 200)
                    await asyncio.sleep(_READY_SECONDS)

            looking = asyncio.create_task(look())
            while time.monotonic() < until:
                begun = time.perf_counter()
                answer = await client.get(f"{_API}/{self._job_id}")
                took.append(1000 * (time.perf_counter() - begun))
                if answer.status_code != 200:
                    raise RuntimeError(f"a read was answered {answer.status_code}: {answer.text[:300]}")
                await asyncio.sleep(_PAUSE_SECONDS)
            await looking
        p50, p99 = np.percentile(took, [50, 99])
        return {"p50_ms": float(p50), "p99_ms": float(p99), "ready": sum(ready) / len(ready)}


class Jobs:
    """Jobs whose first step tells its progress, one after the other, at a steady rate."""

    def __init__(self, producer: AIOKafkaProducer, count: int) -> None:
        self._producer = producer
        self.ids = [f"sse-{uuid4().hex}" for _ in range(count)]
        self._told = 0

    async def request(self) -> None:
        """Ask for all of them."""
        for job_id in self.ids:
            request = {**REQUEST, "job_id": job_id}
            await self._send(REQUESTS.name, JobRequested(job_id=job_id, request=request))
        await self._producer.flush()

    async def go_on(self, rate: float) -> None:
        """Tell progress until cancelled."""
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


@asynccontextmanager
async def orchestrator(servers: Servers, home: Path) -> AsyncIterator[tuple[str, psutil.Process]]:
    """Its address and its process, once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ, "NEUROWEAVER_KAFKA_BOOTSTRAP": servers.bootstrap, "NEUROWEAVER_DATABASE_URL": servers.database_url,
        "NEUROWEAVER_HTTP_PORT": str(port), "NEUROWEAVER_HOME": str(home), "NEUROWEAVER_LOG_LEVEL": "WARNING",
    }  # fmt: skip
    serve = "from services.cli.main import run; run()"
    log = (home / "orchestrator.log").open("wb")
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", serve, "serve", "orchestrator", env=environment, stdout=log, stderr=log
    )
    base = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS), httpx.AsyncClient(base_url=base) as client:
            while not await _is(client, "/api/v1/health/ready"):
                await asyncio.sleep(0.2)
        yield base, psutil.Process(child.pid)
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()
        log.close()


async def _is(client: httpx.AsyncClient, path: str) -> bool:
    try:
        return (await client.get(path)).status_code == 200
    except httpx.TransportError:
        return False


class Listeners:
    """The process of those that listen."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child

    async def heard(self) -> dict[str, Any]:
        """What they got so far."""
        assert self._child.stdin
        assert self._child.stdout
        self._child.stdin.write(b"\n")
        return dict(json.loads(await self._child.stdout.readline()))

    async def settled(self, count: int) -> float:
        """Seconds until each of them got its first event, or nothing."""
        begun = time.monotonic()
        while (heard := await self.heard())["listening"] + heard["refused"] + heard["lost"] < count:
            if time.monotonic() > begun + _PATIENCE_SECONDS:
                raise RuntimeError(f"they do not all come to an end: {heard}")
            await asyncio.sleep(0.2)
        return time.monotonic() - begun


@asynccontextmanager
async def listeners(base: str, job_ids: Sequence[str]) -> AsyncIterator[Listeners]:
    """One listener to each of `job_ids`, while the block runs."""
    paths = [f"{_API}/{job_id}/events" for job_id in job_ids]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.arms.listeners", base.rpartition(":")[2], json.dumps(paths),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Listeners(child)
    finally:
        assert child.stdin
        child.stdin.close()
        await child.wait()


def _taken(ids: Sequence[str], clients: int) -> Iterator[str]:
    for number in range(clients):
        yield ids[number % len(ids)]


async def measure(
    servers: Servers, *, clients: int = 1000, jobs: int = 50, rate: float = 40, seconds: float = 15
) -> dict[str, Any]:
    """`p50_ratio`: one job read with `clients` listeners on `jobs` jobs, against none; and what else was seen meanwhile."""
    producer = make_producer(Cluster(servers.bootstrap), "benchmark")
    await producer.start()
    with tempfile.TemporaryDirectory() as home:
        async with orchestrator(servers, Path(home)) as (base, process):
            going_on: asyncio.Task[None] | None = None
            try:
                watched, others = Jobs(producer, jobs), Jobs(producer, jobs)
                await watched.request()
                await others.request()
                await _until_known(base, [*watched.ids, *others.ids])
                both = Jobs(producer, 0)
                both.ids = [job_id for pair in zip(watched.ids, others.ids, strict=True) for job_id in pair]
                going_on = asyncio.create_task(both.go_on(rate))
                reading = Reading(base, watched.ids[0])
                await reading.during(_SETTLE_SECONDS)
                none = await reading.during(seconds)
                before = _megabytes(process)
                async with listeners(base, list(_taken(watched.ids, clients))) as many:
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


async def _until_known(base: str, job_ids: Sequence[str]) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS), httpx.AsyncClient(base_url=base) as client:
        for job_id in job_ids:
            while not await _is(client, f"{_API}/{job_id}"):
                await asyncio.sleep(0.1)


def _megabytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20


async def _with_own_servers(clients: int, jobs: int, rate: float, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as home:
        settings = DevStackSettings(home=Path(home), kafka_bootstrap=None, database_url=None)
        with running(settings) as stack:
            await topics.apply(stack.cluster)
            servers = Servers(stack.kafka_bootstrap, stack.database_url)
            return await measure(servers, clients=clients, jobs=jobs, rate=rate, seconds=seconds)


def main() -> int:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.edge.sse", description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=50, help="jobs that are watched; as many are not")
    parser.add_argument("--rate", type=float, default=40, help="changes per second, of watched jobs and others")
    parser.add_argument("--seconds", type=float, default=15, help="of each of the three measurements")
    arguments = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    found = asyncio.run(_with_own_servers(arguments.clients, arguments.jobs, arguments.rate, arguments.seconds))
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
