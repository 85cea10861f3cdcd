"""Leads one request to the server that answers it; what could not be answered is sent again.

An answer changes nothing, so a request may be sent twice: as long as its caller has got no byte, a server that cannot be reached, ends in
the middle or takes nothing new is asked again, or the one that took its place. So a switch fails no request.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import httpx2

from services.chassis.process.transient import is_transient
from services.chassis.serving.problem import Problem
from services.chassis.serving.web.offloading import in_thread_if_large
from services.registry.calling import metrics
from services.registry.calling.answers import NotAnAnswer
from services.registry.calling.asked import Asked
from services.registry.calling.requesting import body_for, request_to
from services.registry.calling.routing import Routing, Server
from services.registry.shadowing.sending import Shadows

PATIENCE_SECONDS = 15.0
"""How long a request is sent again, or waits for a server that was ready a moment ago."""
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)
_TIMEOUT = httpx2.Timeout(600.0, connect=3.0, pool=30.0)
_LIMITS = httpx2.Limits(max_connections=1000, max_keepalive_connections=200, keepalive_expiry=10.0)
_REFUSED = (400, 413, 422, 429)
"""Statuses by which a server says that the request is wrong, or too much."""
_T = TypeVar("_T")


def client() -> httpx2.AsyncClient:
    """Return the client for all servers; it uses no proxy, whatever the environment says."""
    return httpx2.AsyncClient(timeout=_TIMEOUT, limits=_LIMITS, trust_env=False)


class ServerFailed(Exception):
    """A server did not answer as it should; another try may."""


@dataclass
class Forwarder:
    """Sends requests to servers."""

    routing: Routing
    keys: Mapping[str, str] = field(default_factory=dict)
    """API keys by the address of the server, which alone gets it; they are settings of every process, so that no row has one."""
    shadows: Shadows | None = None
    """Gets answers of the version before a canary; None: nothing is shadowed."""
    _http: httpx2.AsyncClient = field(default_factory=client)

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the routing table up to date until `stop`, when nobody asks any more; then close the connections to servers."""
        try:
            await self.routing.run(stop)
        finally:
            before, self._http = self._http, client()
            await before.aclose()

    async def answer(self, asked: Asked, take: Callable[[Server, httpx2.Response], Awaitable[_T]]) -> _T:
        """Return what `take` makes of a server's answer, after as many tries as patience allows.

        `take` may raise ServerFailed, NotAnAnswer and the errors of the connection. Raises a 404 or 503 Problem.
        """
        ends, tries = time.monotonic() + PATIENCE_SECONDS, 0
        while True:
            server, said = await self._find(asked.model, tries), "its server is not ready"
            if server is not None:
                try:
                    return await self._once(asked, server, take)
                except (ServerFailed, NotAnAnswer) as fault:
                    said = str(fault)
                except httpx2.TransportError as error:
                    said = f"its server cannot be reached ({type(error).__name__})"
                self.routing.counts.failed(server.step)
            if time.monotonic() >= ends:
                if server is not None:
                    metrics.REQUESTS.labels(server.deployment, "failed").inc()
                raise Problem(503, "Not answered", f"{asked.model} does not answer: {said}", headers={"Retry-After": "2"})
            await asyncio.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
            tries += 1
            if server is not None:
                metrics.RETRIES.labels(server.deployment).inc()
            await self._look()

    async def _once(self, asked: Asked, server: Server, take: Callable[[Server, httpx2.Response], Awaitable[_T]]) -> _T:
        body = await in_thread_if_large(asked.size, body_for, asked, server)
        request = request_to(self._http, server, body, self.keys)
        answer = await self._http.send(request, stream=True)
        try:
            if not answer.is_success and answer.status_code not in _REFUSED:
                raise ServerFailed(f"its server answers with status {answer.status_code}")
            return await take(server, answer)
        except BaseException:
            await answer.aclose()
            raise

    async def _find(self, name: str, tries: int) -> Server | None:
        """Find the server for a name; a name that the table does not know may be newer than the table."""
        try:
            return self.routing.pick(name, tries)
        except Problem:
            if tries:
                raise
            await self._look()
            return self.routing.pick(name, tries)

    async def _look(self) -> None:
        try:
            await self.routing.refresh()
        except Exception as error:
            if not is_transient(error):
                raise
