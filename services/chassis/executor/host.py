"""What a worker needs of the service that it works for."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis.kafka.publisher import Publisher
from services.chassis.kernel.aggregate import Ref
from services.chassis.kernel.transaction.commands import Command
from services.chassis.postgres.notifications import Notifications
from services.chassis.process.health import Health
from services.chassis.settings import ServiceSettings
from services.chassis.storage.retention.run import Remover


class Host(Protocol):
    """The running service, as its workers see it."""

    @property
    def settings(self) -> ServiceSettings:
        """Of the service, or of everything in one process."""

    @property
    def service(self) -> str:
        """Its name."""

    @property
    def engine(self) -> AsyncEngine:
        """Its database."""

    @property
    def health(self) -> Health:
        """Where a worker says what keeps it from working."""

    @property
    def publisher(self) -> Publisher:
        """For events that may be lost: progress."""

    @property
    def notifications(self) -> Notifications:
        """Wakes a worker when there is work."""

    def keep(self, removers: Sequence[Remover]) -> None:
        """Have the retention policy applied to more than what every service has."""

    def transact(self, refs: Iterable[Ref]) -> AbstractAsyncContextManager[Command]:
        """One locked transaction on `refs`. Raises OtherDeployment."""
