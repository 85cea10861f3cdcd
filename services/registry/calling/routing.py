"""Knows which server answers for a name: a table in memory, which follows the rows within half a second.

The table is read again at once when a deployment changes, and by a request whose server cannot be reached. While the database is away
callers are led by the last one.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.deployments import DeploymentRequested, Shadow
from services.chassis.postgres.notifications import Notifications
from services.chassis.process.logging import get_logger
from services.chassis.process.repeated_failures import FailureLog
from services.chassis.process.transient import until_stopped
from services.chassis.serving.problem import Problem
from services.chassis.serving.reads import Reads
from services.registry.calling import metrics, statements
from services.registry.calling.traffic import Step, TrafficCounts
from services.registry.deploying.statements import CHANNEL
from services.registry.domain.deployments.state import DeploymentState, slot_of

_log = get_logger(__name__)
_POLL_SECONDS = 0.5


class Server(NamedTuple):
    """A server that answers for a version of a deployment."""

    deployment: str
    generation: int
    served: str
    """`model@version`."""
    address: str
    headers: tuple[tuple[str, str], ...]
    step: Step | None = None
    """The step of a canary for which it is counted."""
    called: str = ""
    """What it calls the version, where that is not `served`."""


class Canary(NamedTuple):
    """A version that gets a share of the callers of a deployment."""

    percent: float
    server: Server
    shadow: Shadow | None = None
    """How its answers are compared with those of the version before."""


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """Which servers answer for which name."""

    deployments: Mapping[str, tuple[Server, ...]]
    """By deployment, the best first; none if nothing is ready."""
    canaries: Mapping[str, Canary]
    """Those that are ready, by deployment."""
    rollouts: frozenset[tuple[str, int]]
    """Deployments with a canary under way, and its generation."""
    waiting: frozenset[str]
    """Deployments that have served callers, so that it is worth to wait until they do again."""
    versions: Mapping[str, tuple[Server, ...]]
    """By `model@version`."""
    aliases: Mapping[str, str]
    """`model@version` by `model@alias`, of models that are deployed."""

    @classmethod
    def of(cls, rows: Iterator[Any]) -> "RoutingTable":
        """Return the table of the rows of `statements.ROUTES`."""
        deployments, versions = dict[str, tuple[Server, ...]](), dict[str, tuple[Server, ...]]()
        waiting, aliases = set[str](), dict[str, str]()
        canaries, rollouts = dict[str, Canary](), set[tuple[str, int]]()
        for name, text, now, named, ready in rows:
            state = DeploymentState.stored(text)
            slots = json.loads(ready)
            serving = (state.active, state.returns_to(now))
            deployments[name] = tuple(_counted(state, server) for server in _servers(serving, slots))
            if state.percent is not None and state.target is not None:
                rollouts.add((name, state.target.generation))
                for server in _servers((state.target,), slots):
                    canaries[name] = Canary(state.percent, _counted(state, server), state.target.rollout.shadow)
            if state.active is not None and state.trouble is None:
                waiting.add(name)
            for server in _servers((*serving, state.target), slots):
                versions[server.served] = (*versions.get(server.served, ()), server)
            if state.wish is not None:
                model = state.wish.model
                aliases |= {f"{model}@{alias}": f"{model}@{version}" for alias, version in json.loads(named).items()}
        return cls(deployments, canaries, frozenset(rollouts), frozenset(waiting), versions, aliases)

    def find(self, name: str) -> tuple[Server, ...]:
        """Return the servers for a deployment, `model@alias` or `model@version`, the best first; none if it was ready and soon will be.

        Raises a 404 Problem for a name that nothing serves, 503 for a deployment that is not ready.
        """
        if name in self.deployments:
            found = self.deployments[name]
            if not found and name not in self.waiting and name not in self.canaries:
                raise _not_ready(name)
            return found
        found = self.versions.get(self.aliases.get(name, name), ())
        if not found:
            raise _unknown(name)
        return found

    def names(self) -> Mapping[str, str]:
        """Return every name that is answered, with the deployment that answers."""
        served = {name: servers[0].deployment for name, servers in self.versions.items()}
        aliased = {alias: served[version] for alias, version in self.aliases.items() if version in served}
        return {**{name: name for name, servers in self.deployments.items() if servers}, **aliased, **served}


def _counted(state: DeploymentState, server: Server) -> Server:
    """Return a server with the step for which it is counted, if a canary is under way."""
    if state.percent is None or state.target is None:
        return server
    target = server.generation == state.target.generation
    return server._replace(step=Step(server.deployment, state.target.generation, state.percent, target))


def _servers(wishes: tuple[DeploymentRequested | None, ...], slots: Mapping[str, Any]) -> Iterator[Server]:
    for wish in wishes:
        slot = None if wish is None else slots.get(slot_of(wish))
        if wish is None or slot is None:
            continue
        served = f"{wish.model}@{wish.version}"
        if (slot["served"], slot["sha256"]) == (served, wish.artifact.sha256):
            headers = tuple((name, value) for name, value in slot["headers"])
            yield Server(wish.deployment, wish.generation, served, slot["address"], headers, called=slot["called"])


@dataclass
class Routing:
    """The routing table of one process, and the counts of those whom it led."""

    reads: Reads
    notifications: Notifications
    engine: AsyncEngine
    table: RoutingTable = field(default_factory=lambda: RoutingTable.of(iter(())))
    counts: TrafficCounts = field(default_factory=TrafficCounts)
    _shares: dict[str, float] = field(default_factory=dict)
    """By deployment, the percents that its canary is owed: each caller adds its share, and 100 make the next one the canary's."""
    _reading: "asyncio.Task[None] | None" = None

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the table up to date until `stop`."""
        failures = FailureLog(_log)
        with self.notifications.subscribe(CHANNEL) as woken:
            while not stop.is_set():
                try:
                    await self.refresh()
                    await self.counts.store(self.engine, self.table.rollouts)
                    failures.recovered()
                except Exception as error:
                    failures.failed("callers are led by the last table", error)
                await until_stopped(woken.wait(_POLL_SECONDS), stop)

    def pick(self, name: str, tries: int) -> Server | None:
        """Return the server for the next try at a request, which goes through all that there are; None if none is ready now.

        Raises a Problem as `RoutingTable.find`.
        """
        servers, canary = self.table.find(name), self.table.canaries.get(name)
        if canary is None:
            return servers[tries % len(servers)] if servers else None
        if tries == 0:
            return canary.server if self._is_next(name, canary.percent) or not servers else servers[0]
        others = (*servers, canary.server)
        return others[(tries - 1) % len(others)]

    def _is_next(self, name: str, percent: float) -> bool:
        owed = self._shares.get(name, 0.0) + percent
        self._shares[name] = owed - 100.0 if owed >= 100.0 else owed
        return owed >= 100.0

    async def refresh(self) -> None:
        """Read the table now; who asks meanwhile waits for the same reading. Raises the errors of the database."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        await asyncio.shield(self._reading)

    async def _read(self) -> None:
        before = self.table
        self.table = RoutingTable.of(iter(await self.reads.rows(statements.ROUTES)))
        gone = before.deployments.keys() - self.table.deployments.keys()
        metrics.forget(gone)
        self._shares = {name: owed for name, owed in self._shares.items() if name in self.table.canaries}


def _unknown(name: str) -> Problem:
    detail = f"nothing serves the model {name!r}; GET /v1/models lists what is served, and POST /api/v1/deployments deploys a version"
    return Problem(404, "Model not found", detail)


def _not_ready(name: str) -> Problem:
    detail = f"deployment {name!r} is not ready; GET /api/v1/deployments/{name} says why"
    return Problem(503, "Not ready", detail, headers={"Retry-After": "2"})
