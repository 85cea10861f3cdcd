"""Defines the interface of a running service that its workers use."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis.kafka.publisher import Publisher
from services.chassis.kernel.aggregate import Ref
from services.chassis.kernel.transaction.commands import Command
from services.chassis.postgres.notifications import Notifications
from services.chassis.process.health import Health
from services.chassis.replay.referenced import ReferencedBy
from services.chassis.settings import ServiceSettings
from services.chassis.storage.retention.run import Remover


class Host(Protocol):
    """The running service, as its workers see it."""

    @property
    def settings(self) -> ServiceSettings:
        """The settings of the service, or of all services in one process."""

    @property
    def service(self) -> str:
        """The name of the service."""

    @property
    def engine(self) -> AsyncEngine:
        """The engine of its database."""

    @property
    def health(self) -> Health:
        """Where a worker reports what keeps it from working."""

    @property
    def publisher(self) -> Publisher:
        """Publishes events that may be lost: progress."""

    @property
    def notifications(self) -> Notifications:
        """Wakes a worker when there is work."""

    def keep(self, removers: Sequence[Remover]) -> None:
        """Add removers to those that apply the retention policy for every service."""

    def reference(self, referenced_by: ReferencedBy) -> None:
        """Name tables of which not every row references the artifacts that it names."""

    def transact(self, refs: Iterable[Ref]) -> AbstractAsyncContextManager[Command]:
        """Open one locked transaction on `refs`. Raises OtherDeployment."""
