"""The one place where anything is removed for its age or size: by each service once an hour, and by `neuroweaver retention`."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import Counter
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.base import Frozen
from services.chassis.process.logging import get_logger
from services.chassis.process.metrics import REGISTRY
from services.chassis.process.transient import described, wait_or_stop

REMOVED = Counter(
    "neuroweaver_retention_removed", "Things removed by the retention policy.", ["service", "kind"], registry=REGISTRY
)
REMOVED_BYTES = Counter(
    "neuroweaver_retention_removed_bytes", "Bytes removed by the retention policy.", ["service", "kind"], registry=REGISTRY
)
FAILURES = Counter(
    "neuroweaver_retention_failures",
    "Times that a kind could not be looked through.",
    ["service", "kind"],
    registry=REGISTRY,
)

_log = get_logger(__name__)


class Removal(Frozen):
    """What the policy removed of one kind, or would remove."""

    kind: str
    count: int = 0
    size: int = Field(default=0, description="Bytes.")
    error: str | None = Field(default=None, description="Why not all of it was looked at or removed.")


@dataclass(frozen=True, slots=True)
class Gone:
    """How much of a kind goes."""

    count: int
    size: int


class Remover(Protocol):
    """Knows one kind: which of it the policy no longer keeps, and how it is removed while others may use the rest."""

    @property
    def kind(self) -> str:
        """Its name, as metrics and the command show it."""

    async def apply(self, *, dry: bool) -> Gone:
        """Remove what is no longer kept; only count it where `dry`. May raise; what was not removed goes the next time."""


async def retain(service: str, removers: Sequence[Remover], *, dry: bool = False) -> list[Removal]:
    """Apply the policy to every kind, one after the other; one that fails does not keep the others from theirs."""
    removals = []
    for remover in removers:
        try:
            gone = await remover.apply(dry=dry)
        except Exception as error:
            FAILURES.labels(service, remover.kind).inc()
            _log.warning("retention failed; it is tried again", service=service, kind=remover.kind, error=described(error))
            removals.append(Removal(kind=remover.kind, error=described(error)))
            continue
        removals.append(Removal(kind=remover.kind, count=gone.count, size=gone.size))
        if gone.count and not dry:
            REMOVED.labels(service, remover.kind).inc(gone.count)
            REMOVED_BYTES.labels(service, remover.kind).inc(gone.size)
            _log.info(
                "removed by the retention policy", service=service, kind=remover.kind, count=gone.count, bytes=gone.size
            )
    return removals


@dataclass(frozen=True)
class Retention:
    """The loop of one service."""

    service: str
    removers: Sequence[Remover]
    every_seconds: float
    engine: AsyncEngine | None = None
    """That of the removers, which whoever applies them outside the service has to close."""

    async def run(self, stop: asyncio.Event) -> None:
        """Apply the policy now and then."""
        while not stop.is_set():
            await retain(self.service, self.removers)
            await wait_or_stop(stop, self.every_seconds)
