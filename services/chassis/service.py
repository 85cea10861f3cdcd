"""Why: the one shape of a service that `serve` runs alone and `up` runs with the other three."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from fastapi import APIRouter

from services.chassis.health import Health
from services.chassis.runtime import Runtime, Task


@dataclass(frozen=True)
class Service:
    """What a service's `build(settings)` returns; nothing of it has done any I/O yet."""

    name: str
    lifespan: Callable[[], AbstractAsyncContextManager[None]]
    """Runs the service while the block runs; drains on leaving."""
    router: APIRouter
    """Its routes, mounted under `/api/v1`."""
    health: Health


def assemble(runtime: Runtime, *, router: APIRouter, tasks: Sequence[Task] = ()) -> Service:
    """A service from its runtime, its routes and its own loops."""
    return Service(runtime.service, lambda: runtime.run(tasks), router, runtime.health)
