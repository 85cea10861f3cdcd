"""The application of all four services as a process has it, asked without a server; nothing behind it answers."""

from collections.abc import AsyncIterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
from fastapi import FastAPI

from schemas.steps import SERVICES
from services.chassis.serving.http import API, application
from services.chassis.serving.web.settings import HttpSettings
from services.cli.serve import build, settings_of

NOWHERE = {
    "kafka_bootstrap": "127.0.0.1:1",
    "database_url": "postgresql://nobody@127.0.0.1:1/nothing",
    "home": Path("nowhere"),
}
JSON = {"content-type": "application/json"}


@cache
def all_services(**settings: Any) -> FastAPI:
    """Build all services with databases that seem migrated, so that requests reach the routes."""
    services = [build(name, settings_of(name, **NOWHERE)) for name in SERVICES]
    for service in services:
        service.health.report("migrated", True)
    return application(services, HttpSettings(**settings))


async def ask(
    method: str,
    path: str,
    *,
    content: bytes | AsyncIterable[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
    app: FastAPI | None = None,
    below: str = API,
) -> httpx2.Response:
    """Return the answer to a request of a program on this machine."""
    transport = httpx2.ASGITransport(app or all_services())
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8001") as client:
        return await client.request(method, below + path, content=content, headers=headers)


def problem(answer: httpx2.Response, status: int) -> dict[str, Any]:
    """Return the problem document of a refusal."""
    assert answer.status_code == status, answer.text[:1000]
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    return document
