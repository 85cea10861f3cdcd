"""What a worker needs of the service that it works for."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis.aggregate import Ref
from services.chassis.commands import Command
from services.chassis.health import Health
from services.chassis.publisher import Publisher
from services.chassis.retention.run import Remover
from services.chassis.settings import ServiceSettings
from services.chassis.signals import Signals


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
    def signals(self) -> Signals:
        """Wakes a worker when there is work."""

    def keep(self, removers: Sequence[Remover]) -> None:
        """Have the retention policy applied to more than what every service has."""

    def transact(self, refs: Iterable[Ref]) -> AbstractAsyncContextManager[Command]:
        """One locked transaction on `refs`. Raises OtherDeployment."""
