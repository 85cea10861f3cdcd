"""What a worker and the craft of a service know of each other: a piece of work, its context, its outcome."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from schemas.jobs import StepFault, StepRequested, StepResult
from schemas.progress import StepProgressed
from services.chassis.executor.attempts import ref_of
from services.chassis.kernel.aggregate import Decision, Ref, States
from services.chassis.settings import ServiceSettings
from services.chassis.storage.stores import Unwritable


@dataclass(frozen=True, slots=True)
class Work:
    """One attempt under one lease."""

    request: StepRequested
    lease: str
    """Token of the lease; part of the path of everything that this run alone may write."""

    @property
    def ref(self) -> Ref:
        """The attempt."""
        return ref_of(self.request)


class StopReason(StrEnum):
    """Why a run is to end early."""

    CANCEL = "cancel"
    DRAIN = "drain"
    LEASE_LOST = "lease lost"


class WorkContext:
    """What a run may know of its surroundings. `stop` is set whatever the reason; `lost` only when the lease is lost."""

    def __init__(self, settings: ServiceSettings, service: str, publish: Callable[[StepProgressed], None]) -> None:
        self.settings, self.service = settings, service
        self.stop, self.lost = asyncio.Event(), asyncio.Event()
        self.reason: StopReason | None = None
        self._publish = publish
        self._on_renewal: Callable[[], None] = lambda: None

    def progress(self, data: StepProgressed) -> None:
        """Publish a sign of life; lossy. It is the caller who keeps to one a second."""
        self._publish(data)

    def on_renewal(self, act: Callable[[], None]) -> None:
        """Have `act` called whenever the lease was renewed."""
        self._on_renewal = act

    def renewed(self) -> None:
        """The lease was renewed."""
        self._on_renewal()

    def request_stop(self, reason: StopReason) -> None:
        """Ask the run to end. A lost lease overrides the orderly reasons: what it writes no longer counts."""
        if self.reason is None or reason is StopReason.LEASE_LOST:
            self.reason = reason
        self.stop.set()
        if reason is StopReason.LEASE_LOST:
            self.lost.set()


@dataclass(frozen=True, slots=True)
class Completed:
    """The step is done; its artifacts are in place. `decisions` are own events to be taken just before the outcome."""

    result: StepResult
    decisions: Sequence[Decision] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The step failed."""

    fault: StepFault


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run ended early as asked; what it wrote lets another go on from there."""


@dataclass(frozen=True, slots=True)
class UnderLocks:
    """The outcome depends on other aggregates of the service: `decide` is asked in the concluding transaction.

    It gets the states of the attempt and of `refs`, all locked, and the time; it is pure and may be asked again.
    """

    refs: tuple[Ref, ...]
    decide: Callable[[States, datetime], Completed | Failed]


@dataclass(frozen=True, slots=True)
class Postponed:
    """The run could not write what it had to. That is no outcome: the attempt goes on, here or elsewhere, where there is room."""

    unwritable: Unwritable


Outcome = Completed | Failed | Stopped | Postponed | UnderLocks


class StepRunner(Protocol):
    """Does the work of a service's kinds of steps."""

    async def run(self, work: Work, context: WorkContext) -> Outcome:
        """Do `work`; return Stopped soon after `context.stop` is set, at once after `context.lost`.

        May run twice for the same attempt. An exception counts as a fault of the infrastructure.
        """
