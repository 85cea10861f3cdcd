"""What tests do with the deployment of a registry: ask for versions, call it, and read what was told about it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.registry import Registry
from tests.toy import until


async def registered(registry: Registry, *jobs: str, **fields: Any) -> None:
    """Register one version for each job; each is the next minor number, since its data differ."""
    for job in jobs:
        step = registry.step(job, "router", registry.adapter(job), base=(job, job.ljust(64, "b")), **fields)
        await registry.ask(step)
        await registry.result(step)


async def deploy(registry: Registry, what: str, **fields: Any) -> dict[str, Any]:
    """Ask the deployment of this test for a version or an alias of its model."""
    body = {
        "name": registry.job("support"),
        "model": f"{registry.name('router')}@{what}",
        "by": "ana",
        "reason": "r",
        **fields,
    }
    answer = await registry.http.post("/deployments", json=body)
    assert answer.status_code == 202, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


async def shown(registry: Registry) -> dict[str, Any]:
    """Return the deployment of this test."""
    view: dict[str, Any] = (await registry.http.get(f"/deployments/{registry.job('support')}")).json()
    return view


async def serves(registry: Registry, version: str) -> None:
    """Wait until the deployment of this test serves a version and nothing else is to follow."""

    async def done() -> bool:
        view = await shown(registry)
        ready = {one["type"]: one["status"] for one in view["conditions"]}["Ready"]
        return (view["version"], view["target"], ready) == (version, None, "True")

    await until(done, what=lambda: registry.said[-5:])


def question(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields}


async def call(registry: Registry, model: str | None = None, **fields: Any) -> Any:
    return await registry.callers.post("/chat/completions", json=question(model or registry.job("support"), **fields))


def told(registry: Registry) -> list[str]:
    """What was published about the deployment of this test, in words."""
    subject = f"deployments/{registry.job('support')}"
    events = [event for event in registry.said if event.subject == subject]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return [f"{event.type.removeprefix('Deployment')} {getattr(event.data, 'version', '')}" for event in events]


@dataclass
class Callers:
    """Callers that ask all the time, and what they got: versions, and statuses that are no answer."""

    versions: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    last: str = ""


@asynccontextmanager
async def calling(registry: Registry, count: int = 4, **fields: Any) -> AsyncIterator[Callers]:
    """Ask the deployment of this test while the block runs; `fields` are more of each request."""
    callers, ends = Callers(), asyncio.Event()

    async def ask() -> None:
        while not ends.is_set():
            answer = await call(registry, **fields)
            if answer.status_code == 200:
                callers.last = answer.headers["x-neuroweaver-version"].partition("@")[2]
                callers.versions[callers.last] += 1
            else:
                callers.failed.append(answer.text)

    asking = [asyncio.create_task(ask()) for _ in range(count)]
    try:
        yield callers
    finally:
        ends.set()
        await asyncio.gather(*asking)


async def call_is(registry: Registry, model: str, status: int) -> bool:
    return bool((await call(registry, model)).status_code == status)


async def call_is_answered(registry: Registry, model: str) -> bool:
    return await call_is(registry, model, 200)
