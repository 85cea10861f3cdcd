"""The route by which trainings ask judges, behind a real HTTP server, without the feedback service's database and broker."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvicorn

from services.chassis.executor.attempts import ExecutorDomain
from services.chassis.serving.http import application
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.service import assemble
from services.chassis.serving.web.server import server_config
from services.chassis.serving.web.settings import HttpSettings
from services.chassis.storage.sources.settings import SourceSettings
from services.feedback.judging.api import judgement_router
from services.feedback.judging.judges import Judges
from services.feedback.settings import FeedbackSettings
from tests.toy import until


@dataclass(frozen=True)
class Judging:
    """The running route."""

    address: str
    judges: Judges


@contextmanager
def judging(home: Path, **settings: Any) -> Iterator[Judging]:
    """Serve the route during the block, in a thread of its own; without other `sources` its judges may reach loopback."""
    found, ready, over = list[Judging](), threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(home, settings, found, ready, over)))
    thread.start()
    try:
        assert ready.wait(60)
        yield found[0]
    finally:
        over.set()
        thread.join()


async def _serve(
    home: Path, given: dict[str, Any], found: list[Judging], ready: threading.Event, over: threading.Event
) -> None:
    given = {"sources": SourceSettings(hosts=("127.0.0.1",), folders=(home,)), **given}
    settings = FeedbackSettings(home=home, database_url="postgresql://nobody@127.0.0.1:1/nothing", **given)
    judges = Judges(settings)
    runtime = Runtime(settings, "feedback", ExecutorDomain("feedback"), topics=())
    runtime.health.report("migrated", True)

    @asynccontextmanager
    async def only_judges() -> AsyncIterator[None]:
        stop = asyncio.Event()
        running = asyncio.create_task(judges.run(stop))
        yield
        stop.set()
        await running

    service = replace(assemble(runtime, router=judgement_router(judges)), lifespan=only_judges)
    config = server_config(application([service]), HttpSettings(), graceful_seconds=1)
    config.port = 0
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    found.append(Judging(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", judges))
    ready.set()
    await asyncio.to_thread(over.wait)
    server.should_exit = True
    await serving
