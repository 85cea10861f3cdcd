"""Defines the messages between a worker and its child, one JSON object per line: the task in, progress and a final message out."""

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from schemas.artifacts import ArtifactRef
from schemas.base import EventData, Frozen
from schemas.jobs import StepFault, StepResult
from schemas.progress import StepProgressed
from schemas.steps import StepSettings
from schemas.topics import EVENT_TYPES
from services.chassis.executor.folders import folder_name
from services.chassis.storage.sources.allowed import AllowedSources
from services.chassis.storage.stores import Unwritable

LEASE_EXPIRED = os.EX_TEMPFAIL
"""Exit code of a child that ended because its worker did not renew the lease in time."""
STACK_DUMP = signal.SIGUSR1
"""Makes a child write the stacks of its threads to its log, even where it holds the interpreter's lock."""
CHECKPOINT = b"c"
"""What a worker writes to the child's standard input to ask for a checkpoint."""
CHANNEL_VARIABLE = "NEUROWEAVER_CHILD_CHANNEL"
"""Environment variable with the number of the file descriptor that the child writes to."""
ORDERS_VARIABLE = "NEUROWEAVER_WARM_ORDERS"
"""Environment variable that makes a child's module a warm process: the descriptor of its orders, and the seconds for which it idles."""


class ChildTask(Frozen):
    """The task of a child."""

    job_id: str
    step: str
    attempt: int
    kind: str
    requester: str = Field(default="unknown", description="Who requested the job.")
    settings: StepSettings
    inputs: dict[str, ArtifactRef]
    results: dict[str, StepResult] = Field(description="Results of the steps completed before, by step.")
    memory_failures: int = Field(description="Number of earlier attempts that ran out of memory.")
    artifacts: str = Field(description="URI of the artifact store.")
    checkpoints: Path = Field(description="Root of all checkpoints of this step, of every attempt and lease.")
    lease: str = Field(description="Token of the lease under which this child works.")
    cache: Path = Field(description="Folder for files that can be downloaded again.")
    memory_bytes: int | None = Field(
        default=None, description="Main memory that the steps of this executor may use in all; null: that of the machine."
    )
    allowed: AllowedSources = Field(default=AllowedSources(), description="Sources that the job may name; none by default.")
    event_files: Path | None = Field(
        default=None, description="Folder beside the logs for TensorBoard event files of the step; null: none are written."
    )
    measurements: bool = Field(default=False, description="Whether the worker wants the measurements of every step.")
    processes: int = Field(default=1, ge=1, description="Number of processes that do this step together, on this machine.")
    shards: int = Field(
        default=1, ge=1, description="Number of processes that share the weights of a training; 1: each of them holds all."
    )
    rank: int = Field(default=0, ge=0, description="Which of them this is, from 0; only the first one writes and reports.")
    lease_seconds: float | None = Field(
        default=None, description="The child ends if its worker sends nothing for this time; null: it waits for ever."
    )

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that this run writes to, besides its log and its temporary files."""
        local = [Path(self.artifacts)] if self.artifacts.startswith("/") else []
        return (self.checkpoints, self.cache, *local)

    @property
    def own_checkpoints(self) -> Path:
        """The folder of this run's own checkpoints: `<attempt>/<lease>` below `checkpoints`."""
        return self.checkpoints / str(self.attempt) / folder_name(self.lease)


class ProgressMessage(Frozen):
    """The child reports progress."""

    message: Literal["progress"] = "progress"
    progress: StepProgressed


class MeasuredMessage(Frozen):
    """The child tells what it measured at an optimiser step."""

    message: Literal["measured"] = "measured"
    step: int
    values: dict[str, float] = Field(description="Finite numbers by name; JSON has no others.")


class ExtraEvent(Frozen):
    """An own event that is emitted just before the outcome."""

    type: str
    data: dict[str, Any]


class ResultMessage(Frozen):
    """The step is done."""

    message: Literal["result"] = "result"
    result: StepResult
    events: tuple[ExtraEvent, ...] = ()

    @classmethod
    def of(cls, result: StepResult, events: Iterable[EventData]) -> "ResultMessage":
        """Builds the message with `events` as JSON."""
        extra = (ExtraEvent(type=event.type_name(), data=event.model_dump(mode="json")) for event in events)
        return cls(result=result, events=tuple(extra))

    def extra(self) -> list[EventData]:
        """The events as typed data."""
        return [EVENT_TYPES[event.type].model_validate(event.data) for event in self.events]


class FaultMessage(Frozen):
    """The step failed."""

    message: Literal["fault"] = "fault"
    fault: StepFault


class StoppedMessage(Frozen):
    """The child ended early on request."""

    message: Literal["stopped"] = "stopped"


class UnwritableMessage(Frozen):
    """The child could not write a file. This is no fault of the step, which continues when there is room."""

    message: Literal["unwritable"] = "unwritable"
    unwritable: Unwritable


FinalMessage = ResultMessage | FaultMessage | StoppedMessage | UnwritableMessage
RunningMessage = ProgressMessage | MeasuredMessage
"""What a child says before its final message."""
Message = Annotated[RunningMessage | FinalMessage, Field(discriminator="message")]
MESSAGE: TypeAdapter[RunningMessage | FinalMessage] = TypeAdapter(Message)
