"""Sends shadowed requests to the canary in the background, and stores the pairs of answers.

Nothing of it delays or fails a caller: a request is offered after its answer was sent, waits in a short queue, and is dropped and counted
if the canary takes too long. What a process has not stored when it dies is lost; nobody waits for it.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis.process.logging import get_logger
from services.chassis.process.repeated_failures import FailureLog
from services.chassis.process.transient import wait_or_stop
from services.chassis.serving.reads import Reads
from services.registry.bounded import bounded
from services.registry.calling.asked import Asked
from services.registry.calling.metrics import SHADOWS
from services.registry.calling.requesting import body_for, request_to
from services.registry.calling.routing import Canary, Routing, Server
from services.registry.locks import SHADOW_PAIRS_LOCK
from services.registry.shadowing import statements
from services.registry.shadowing.choosing import TEXT_BYTES, Offer, is_plain, text_of, whole

_log = get_logger(__name__)
WAITING_AT_MOST = 32
"""The most requests of a process that wait for a canary; further ones are dropped."""
AT_ONCE = 4
"""The most that a process sends at the same time."""
ANSWER_SECONDS = 60.0
"""How long a canary may take for a shadowed request."""
_STORE_SECONDS = 0.5
_ANSWER_BYTES = 8 * TEXT_BYTES
_Step = tuple[str, int, float]


@dataclass
class Shadows:
    """The shadow traffic of one process."""

    routing: Routing
    reads: Reads
    engine: AsyncEngine
    keys: Mapping[str, str] = field(default_factory=dict)
    """API keys by the address of the server."""
    _waiting: "asyncio.Queue[Offer]" = field(default_factory=lambda: asyncio.Queue(WAITING_AT_MOST))
    _asking: int = 0
    """How many requests the canaries have not answered yet."""
    _pairs: dict[str, tuple[Offer, str]] = field(default_factory=dict)
    """Pairs as JSON that are not stored yet, by response."""
    _owed: dict[str, float] = field(default_factory=dict)
    """By deployment, the shares of requests that its canary is owed: each adds its share, and a whole one makes the next."""
    _counts: Mapping[_Step, int] = field(default_factory=dict)
    """How many pairs of each step are stored."""

    def wants(self, server: Server, asked: Asked) -> bool:
        """Return whether the answer of this server is to be offered."""
        canary = self._canary(server)
        if canary is None or canary.shadow is None:
            return False
        step = (server.deployment, canary.server.generation, canary.percent)
        under_way = self._waiting.qsize() + self._asking + len(self._pairs)
        if self._counts.get(step, 0) + under_way >= canary.shadow.most_pairs:
            return False
        owed = self._owed.get(server.deployment, 0.0) + canary.shadow.share
        self._owed[server.deployment] = owed - 1.0 if owed >= 1.0 else owed
        if owed < 1.0:
            return False
        if not is_plain(asked):
            SHADOWS.labels(server.deployment, "left out").inc()
            return False
        return True

    def offer(self, server: Server, asked: Asked, response: str, answer: str) -> None:
        """Take an answer that was wanted, unless it is too long, too many wait or the canary is gone."""
        canary = self._canary(server)
        if canary is None or canary.shadow is None:
            return
        if len(answer) > TEXT_BYTES:
            SHADOWS.labels(server.deployment, "left out").inc()
            return
        offer = Offer(
            server.deployment, canary.server.generation, canary.percent, canary.shadow.most_pairs, asked, response,
            server.served, answer,
        )  # fmt: skip
        try:
            self._waiting.put_nowait(offer)
        except asyncio.QueueFull:
            SHADOWS.labels(server.deployment, "dropped").inc()

    async def run(self, stop: asyncio.Event) -> None:
        """Send and store until `stop`; what waits for the canary then is dropped."""
        async with client() as http:
            sending = [asyncio.create_task(self._send(http)) for _ in range(AT_ONCE)]
            try:
                await self._keep(stop)
            finally:
                for task in sending:
                    task.cancel()
                await asyncio.gather(*sending, return_exceptions=True)

    def _canary(self, server: Server) -> Canary | None:
        """Return the canary beside which a server answered; None if that step is over."""
        step, canary = server.step, self.routing.table.canaries.get(server.deployment)
        if step is None or step.target or canary is None:
            return None
        return canary if (canary.server.generation, canary.percent) == (step.rollout, step.percent) else None

    async def _send(self, http: httpx2.AsyncClient) -> None:
        while True:
            offer = await self._waiting.get()
            self._asking += 1
            outcome = "failed"
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    outcome = await self._ask(http, offer)
            except Exception as error:
                _log.debug("a canary did not answer a shadowed request", deployment=offer.deployment, error=repr(error))
            finally:
                self._asking -= 1
            SHADOWS.labels(offer.deployment, outcome).inc()

    async def _ask(self, http: httpx2.AsyncClient, offer: Offer) -> str:
        """Ask the canary and keep the pair; return what became of it. Raises the connection's errors, and ValueError for garbage."""
        canary = self.routing.table.canaries.get(offer.deployment)
        if canary is None or canary.server.generation != offer.rollout:
            return "dropped"
        server = canary.server
        request = request_to(http, server, body_for(whole(offer.asked), server), self.keys)
        answer = await http.send(request, stream=True)
        try:
            if not answer.is_success:
                return "failed"
            body = await bounded(answer, _ANSWER_BYTES)
        finally:
            await answer.aclose()
        if body is None:
            raise ValueError(f"the server's answer is larger than {_ANSWER_BYTES} bytes")
        said = text_of(body)
        if not said:
            return "empty"
        if len(said) > TEXT_BYTES:
            return "left out"
        self._pairs[offer.response] = offer, offer.pair(server.served, said).model_dump_json(exclude_defaults=True)
        return "paired"

    async def _keep(self, stop: asyncio.Event) -> None:
        """Store what is new, and count what there is while a canary is shadowed."""
        failures = FailureLog(_log)
        while True:
            last = stop.is_set()
            try:
                await self._store()
                failures.recovered()
            except Exception as error:
                failures.failed("pairs of answers could not be stored", error)
            if last:
                return
            await wait_or_stop(stop, _STORE_SECONDS)

    async def _store(self) -> None:
        pairs = dict(self._pairs)
        if pairs:
            async with self.engine.begin() as connection:
                await connection.execute(statements.TAKE_TURN, {"lock": SHADOW_PAIRS_LOCK})
                await connection.execute(statements.STORE, _values(pairs))
            self._pairs = {response: pair for response, pair in self._pairs.items() if response not in pairs}
        if any(canary.shadow for canary in self.routing.table.canaries.values()):
            rows = await self.reads.rows(statements.COUNTS)
            self._counts = {(name, rollout, percent): count for name, rollout, percent, count, _ in rows}


def client() -> httpx2.AsyncClient:
    """Return a client that takes no connection from callers; it uses no proxy, whatever the environment says."""
    limits = httpx2.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE, keepalive_expiry=10.0)
    return httpx2.AsyncClient(timeout=httpx2.Timeout(ANSWER_SECONDS, connect=3.0), limits=limits, trust_env=False)


def _values(pairs: Mapping[str, tuple[Offer, str]]) -> Mapping[str, Any]:
    columns: Mapping[str, Callable[[Offer], object]] = {
        "deployments": lambda offer: offer.deployment,
        "rollouts": lambda offer: offer.rollout,
        "percents": lambda offer: offer.percent,
        "most": lambda offer: offer.most,
    }
    offers = [offer for offer, _ in pairs.values()]
    named = {name: [value(offer) for offer in offers] for name, value in columns.items()}
    return {**named, "responses": list(pairs), "pairs": [pair for _, pair in pairs.values()]}
