"""Defines the interface between a worker and a service's step runner: the work, its context and its outcome."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from schemas.jobs import StepFault, StepRequested, StepResult
from schemas.progress import DeviceReading, StepProgressed
from services.chassis.executor.attempts import ref_of
from services.chassis.kernel.aggregate import Decision, Ref, States
from services.chassis.settings import ServiceSettings
from services.chassis.storage.stores import Unwritable


@dataclass(frozen=True, slots=True)
class Work:
    """One attempt under one lease."""

    request: StepRequested
    lease: str
    """Token of the lease; it is part of every path that only this run may write."""

    @property
    def ref(self) -> Ref:
        """The ref of the attempt."""
        return ref_of(self.request)


class StopReason(StrEnum):
    """Why a run has to end early."""

    CANCEL = "cancel"
    DRAIN = "drain"
    LEASE_LOST = "lease lost"


class WorkContext:
    """The context of a run. `stop` is set for any reason to end; `lost` only when the lease is lost. `gpus`: the numbers of its GPUs.

    `held`: a descriptor that the process of the run has to keep open, so that it counts on this machine as long as it runs.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        service: str,
        publish: Callable[[StepProgressed], None],
        gpus: Sequence[int] = (),
        readings: Callable[[], tuple[DeviceReading, ...]] = lambda: (),
        held: int | None = None,
    ) -> None:
        self.settings, self.service, self.gpus, self.held = settings, service, gpus, held
        self.stop, self.lost = asyncio.Event(), asyncio.Event()
        self.reason: StopReason | None = None
        self._publish = publish
        self._readings = readings
        self._on_progress: list[Callable[[StepProgressed], None]] = []
        self._on_measured: list[Callable[[int, Mapping[str, float]], None]] = []
        self._on_renewal: Callable[[], None] = lambda: None
        self._on_checkpoint: Callable[[], None] = lambda: None

    def progress(self, data: StepProgressed) -> None:
        """Publish progress with the readings of the devices, which may be lost. The caller has to limit it to one a second."""
        complete = data.model_copy(update={"devices": self._readings()})
        for act in self._on_progress:
            act(complete)
        self._publish(complete)

    def on_progress(self, act: Callable[[StepProgressed], None]) -> None:
        """Add a function to call with all progress."""
        self._on_progress.append(act)

    def measured(self, step: int, values: Mapping[str, float]) -> None:
        """Pass on what was measured at an optimiser step."""
        for act in self._on_measured:
            act(step, values)

    def on_measured(self, act: Callable[[int, Mapping[str, float]], None]) -> None:
        """Add a function to call with the measurements of every optimiser step; without one the child does not send them."""
        self._on_measured.append(act)

    @property
    def wants_measurements(self) -> bool:
        """Whether anybody wants the measurements of every step."""
        return bool(self._on_measured)

    def on_renewal(self, act: Callable[[], None]) -> None:
        """Set the function to call whenever the lease was renewed."""
        self._on_renewal = act

    def renewed(self) -> None:
        """Call the function that was set with `on_renewal`."""
        self._on_renewal()

    def on_checkpoint(self, act: Callable[[], None]) -> None:
        """Set the function to call when a checkpoint is asked for."""
        self._on_checkpoint = act

    def ask_for_checkpoint(self) -> None:
        """Call the function that was set with `on_checkpoint`."""
        self._on_checkpoint()

    def request_stop(self, reason: StopReason) -> None:
        """Ask the run to end. A lost lease overrides the other reasons: nothing that the run writes counts any more."""
        if self.reason is None or reason is StopReason.LEASE_LOST:
            self.reason = reason
        self.stop.set()
        if reason is StopReason.LEASE_LOST:
            self.lost.set()


@dataclass(frozen=True, slots=True)
class Completed:
    """The step is done and its artifacts are stored. `decisions` are own events to emit just before the outcome."""

    result: StepResult
    decisions: Sequence[Decision] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The step failed."""

    fault: StepFault


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run ended early on request; another run can continue from its checkpoints."""


@dataclass(frozen=True, slots=True)
class UnderLocks:
    """The outcome depends on other aggregates of the service: `decide` is called in the concluding transaction.

    It gets the states of the attempt, of `refs` and of those that `further` returns, all locked, and the time. Both must be pure and
    may be called again.
    """

    refs: tuple[Ref, ...]
    decide: Callable[[States, datetime], Completed | Failed]
    further: Callable[[States], tuple[Ref, ...]] = lambda _: ()
    """Which rows are needed is sometimes said by the states of `refs`; see `Command.lock` for what may be locked so late."""


@dataclass(frozen=True, slots=True)
class Postponed:
    """The run could not write its files. This is no outcome: the attempt continues here or elsewhere, where there is room."""

    unwritable: Unwritable


Outcome = Completed | Failed | Stopped | Postponed | UnderLocks


class StepRunner(Protocol):
    """Executes the step kinds of a service."""

    async def run(self, work: Work, context: WorkContext) -> Outcome:
        """Do `work`; return Stopped soon after `context.stop` is set, at once after `context.lost`.

        It may run twice for the same attempt. An exception counts as an infrastructure fault.
        """
