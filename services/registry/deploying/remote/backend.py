"""The port between the driver of slots that are served elsewhere and the program that serves them there."""

from asyncio import Task
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from services.registry.deploying.driver import Observed, ServingState, Target
from services.registry.deploying.observing import seen


@dataclass(slots=True, eq=False)
class RemoteSlot:
    """A target, what is seen of it, and the task that brings it up and watches it."""

    target: Target
    observed: Observed
    task: "Task[None] | None" = None

    def see(
        self, state: ServingState, reason: str, message: str = "", address: str | None = None, called: str = ""
    ) -> None:
        """Set what is observed."""
        self.observed = seen(self.observed, state, reason, message, address, called)

    def starts(self, reason: str) -> None:
        """Say how far it is; a fault stays visible until the target is ready."""
        if self.observed.state == "starting":
            self.see("starting", reason)


class Backend(Protocol):
    """Serves targets elsewhere. What it serves outlives this process."""

    def name(self, target: Target) -> str:
        """Return the name of what serves a target; slots whose targets have the same one share it."""

    async def serve(self, slot: RemoteSlot) -> None:
        """Bring the slot's target up and watch it for as long as it is served; returns when that has to begin again.

        Raises Refused for what another try does not mend by itself, Away for what it may.
        """

    async def release(self, target: Target) -> None:
        """Serve a target no more. Raises Refused or Away; what is left then is a leftover."""

    async def sweep(self, wanted: Collection[Target]) -> None:
        """Remove what this registry began to serve once and nobody wants now. Raises Refused or Away."""

    async def close(self) -> None:
        """Close the connections; what is served goes on."""
