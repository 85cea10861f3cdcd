"""Defines what a service is: `serve` runs one alone, and `up` runs all four."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.routing import APIRoute

from services.chassis.kernel.operations.handling import DeadLetterContext
from services.chassis.kernel.operations.partitions.reading import ConsumedTopics
from services.chassis.process.health import Health
from services.chassis.process.transient import Loop
from services.chassis.replay.artifacts import Owner
from services.chassis.replay.background import Replays
from services.chassis.replay.projection import Projection
from services.chassis.replay.referenced import ReferencedArtifacts
from services.chassis.serving.api.deadletters import dead_letter_router
from services.chassis.serving.api.partitions import partition_router
from services.chassis.serving.api.replay import projection_router
from services.chassis.serving.runtime import Runtime
from services.chassis.storage.retention.run import Retention


@dataclass(frozen=True)
class Service:
    """A service as its `build(settings)` returns it, before any I/O."""

    name: str
    lifespan: Callable[[], AbstractAsyncContextManager[None]]
    """A context manager that runs the service during the block and drains it afterwards."""
    routers: Sequence[APIRouter]
    """Its routes, mounted under `/api/v1`."""
    callers: Sequence[APIRouter]
    """Its routes whose paths other programs fix, mounted as they are."""
    health: Health
    projection: Projection
    handling: DeadLetterContext
    reading: ConsumedTopics
    retention: Retention
    referenced: ReferencedArtifacts
    owner: Owner | None
    """Tells what becomes of artifacts; one of the services does."""

    def paths(self, prefix: str) -> Sequence[str]:
        """Return the templates of its routes; those that are mounted under `prefix` begin with it."""
        return [path for path, _ in self._routes(prefix)]

    def body_limits(self, prefix: str) -> Mapping[str, int]:
        """Return the most bytes of a route's body, by its path; for all others it is
        `services.chassis.serving.web.body.BODY_BYTES`."""
        return {path: route.max_body_size for path, route in self._routes(prefix) if route.max_body_size is not None}

    def _routes(self, prefix: str) -> Iterator[tuple[str, APIRoute]]:
        for begins, routers in ((prefix, self.routers), ("", self.callers)):
            yield from (
                (begins + route.path, route) for router in routers for route in router.routes if isinstance(route, APIRoute)
            )


def assemble(
    runtime: Runtime,
    *,
    router: APIRouter,
    tasks: Sequence[Loop] = (),
    more: Sequence[APIRouter] = (),
    callers: Sequence[APIRouter] = (),
    owner: Owner | None = None,
) -> Service:
    """Make a service from its runtime, its routes and its own loops; `more` are routes that are requested rarely, `callers` those
    outside `/api/v1`, `owner` tells what becomes of artifacts."""
    replays = Replays(runtime.projection)
    routers = (
        router,
        projection_router(replays),
        dead_letter_router(runtime.engine, runtime.handling),
        partition_router(runtime.engine, runtime.reading),
        *more,
    )
    return Service(
        name=runtime.service,
        lifespan=lambda: runtime.run((*tasks, replays.run)),
        routers=routers,
        callers=callers,
        health=runtime.health,
        projection=runtime.projection,
        handling=runtime.handling,
        reading=runtime.reading,
        retention=runtime.retention,
        referenced=runtime.referenced,
        owner=owner,
    )
