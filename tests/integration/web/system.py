"""All four services behind one real server in a thread of its own, with something to find: a job that ended and a model."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import httpx2
import uvicorn
from sqlalchemy.engine import make_url

from services.chassis.migrations.migrate import ensure_migrated
from services.chassis.serving.http import application
from services.chassis.serving.service import Service
from services.chassis.serving.web.server import server_config
from services.chassis.serving.web.settings import HttpSettings
from services.chassis.settings import ServiceSettings
from services.cli.serve import build, settings_of
from tests.orchestrator import Orchestrator
from tests.registry import Registry
from tests.toy import until


@dataclass(frozen=True)
class System:
    """The system's address and content."""

    address: str
    job_id: str
    model: str


@contextmanager
def running_system(kafka: str, database_url: str, home: Path) -> Iterator[System]:
    """Run the system during the block, on its own event loop because the tests block theirs."""
    ready, found, stop = threading.Event(), list[System | BaseException](), threading.Event()

    async def work() -> None:
        async with _system(kafka, database_url, home) as system:
            found.append(system)
            ready.set()
            await asyncio.to_thread(stop.wait)

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            found.append(error)
            ready.set()
            raise

    thread = threading.Thread(target=run, name="system")
    thread.start()
    try:
        ready.wait()
        if isinstance(found[0], BaseException):
            raise found[0]
        yield found[0]
    finally:
        stop.set()
        thread.join()


@asynccontextmanager
async def _system(kafka: str, database_url: str, home: Path) -> AsyncIterator[System]:
    orchestrator, registry = (
        Orchestrator(kafka, database_url, home, decision_wait_seconds=0.1),
        Registry(kafka, database_url, home),
    )
    own = [orchestrator.service(), registry.service()]
    others = [_at_rest(name, kafka, database_url, home) for name in ("trainer", "feedback")]
    config = server_config(application([*own, *others]), HttpSettings(), graceful_seconds=1)
    config.port = 0
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started)
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        await until(
            lambda: all(service.health.ready for service in own), what=lambda: [service.health.missing for service in own]
        )
        await orchestrator.ask(orchestrator.request("ended", pipeline="magic"))
        await registry.ask(registry.step("job", "router", registry.adapter()))
        system = System(address, f"{orchestrator.prefix}ended", registry.name("router"))
        async with httpx2.AsyncClient(base_url=f"{address}/api/v1") as client:
            for path in (f"/training/{system.job_id}/progress", f"/models/{system.model}"):
                await until(lambda path=path: _is_there(client, path))
        yield system
    finally:
        server.should_exit = True
        await serving
        await orchestrator.disconnect()


async def _is_there(client: httpx2.AsyncClient, path: str) -> bool:
    return (await client.get(path)).status_code == 200


async def _beat(service: Service) -> None:
    while True:
        service.health.tick()
        await asyncio.sleep(1)


def _at_rest(name: str, kafka: str, database_url: str, home: Path) -> Service:
    """Build a service that only answers from its database, and ignores what other tests left in the log."""
    url = make_url(database_url).set(database=f"{name}_{uuid4().hex[:8]}").render_as_string(hide_password=False)
    settings: ServiceSettings = settings_of(name, kafka_bootstrap=kafka, home=home, **{f"{name}_database_url": url})
    service = build(name, settings)

    @asynccontextmanager
    async def only_migrated() -> AsyncIterator[None]:
        await ensure_migrated(settings, name)
        for condition in service.health.requires:
            service.health.report(condition, True)
        beating = asyncio.create_task(_beat(service))
        yield
        beating.cancel()

    return replace(service, lifespan=only_migrated)
