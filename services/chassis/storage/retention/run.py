"""Applies the retention policy: each service does so once an hour, and `neuroweaver retention` does on request."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.base import Frozen
from services.chassis.process.logging import get_logger
from services.chassis.process.transient import described, wait_or_stop
from services.chassis.storage import metrics

_log = get_logger(__name__)


class Removal(Frozen):
    """What the policy removed of one kind, or would remove."""

    kind: str
    count: int = 0
    size: int = Field(default=0, description="Bytes.")
    error: str | None = Field(default=None, description="Why not all of it was checked or removed.")


@dataclass(frozen=True, slots=True)
class RemovedAmount:
    """The amount that is removed of a kind."""

    count: int
    size: int


class Remover(Protocol):
    """Finds what the policy no longer keeps of one kind, and removes it while other processes use the rest."""

    @property
    def kind(self) -> str:
        """Name of the kind, as metrics and the command show it."""

    async def apply(self, *, dry: bool) -> RemovedAmount:
        """Remove what is no longer kept; only count it if `dry`. May raise; the next run removes what is left."""


async def retain(service: str, removers: Sequence[Remover], *, dry: bool = False) -> list[Removal]:
    """Apply the policy to each kind in turn; the failure of one does not stop the others."""
    removals = []
    for remover in removers:
        try:
            gone = await remover.apply(dry=dry)
        except Exception as error:
            metrics.FAILURES.labels(service, remover.kind).inc()
            _log.warning(
                "retention failed; it is retried later", service=service, kind=remover.kind, error=described(error)
            )
            removals.append(Removal(kind=remover.kind, error=described(error)))
            continue
        removals.append(Removal(kind=remover.kind, count=gone.count, size=gone.size))
        if gone.count and not dry:
            metrics.REMOVED.labels(service, remover.kind).inc(gone.count)
            metrics.REMOVED_BYTES.labels(service, remover.kind).inc(gone.size)
            _log.info(
                "removed by the retention policy", service=service, kind=remover.kind, count=gone.count, bytes=gone.size
            )
    return removals


@dataclass(frozen=True)
class Retention:
    """Runs the retention loop of one service."""

    service: str
    removers: Sequence[Remover]
    every_seconds: float
    engine: AsyncEngine | None = None
    """The removers' engine; code that applies them outside a service must close it."""

    async def run(self, stop: asyncio.Event) -> None:
        """Apply the policy at intervals until `stop`."""
        while not stop.is_set():
            await retain(self.service, self.removers)
            await wait_or_stop(stop, self.every_seconds)
