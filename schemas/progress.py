"""Defines the progress event of a running attempt, the only event that may be lost."""

from pydantic import Field

from schemas.base import Frozen
from schemas.jobs import StepEventData


class DeviceReading(Frozen):
    """What a GPU, or the processors together, tell of themselves, with everything that runs on them."""

    device: str = Field(description="`cpu` for the processors, `gpu0` for the first GPU of the machine.")
    utilisation: float | None = Field(description="Share of the last moments in which it computed; null: it does not tell.")
    celsius: float | None = Field(description="Temperature; null: it does not tell.")
    memory_used_bytes: int = Field(description="Memory in use.")
    memory_bytes: int = Field(description="Memory in all.")


class StepProgressed(StepEventData):
    """A running step reports its progress, at most once a second.

    The event has no number and is kept for a day; the whole curve is a file in the step's artifact.
    """

    done: int = Field(ge=0, description="Units done: optimiser steps, prompts or rows.")
    of: int = Field(ge=0, description="Total number of units.")
    unit: str = Field(default="steps", description="The unit that is counted.")
    loss: float | None = Field(default=None, description="Training loss of the latest step.")
    learning_rate: float | None = Field(default=None, description="Learning rate of the latest step.")
    tokens_per_second: float | None = Field(default=None, description="Tokens processed per second.")
    memory_bytes: int | None = Field(default=None, description="Resident memory of the working process.")
    eta_seconds: float | None = Field(default=None, description="Estimated seconds until the step ends.")
    gradient_norm: float | None = Field(
        default=None, description="Norm of the latest step's gradient, before it is clipped."
    )
    losses: tuple[float, ...] = Field(
        default=(),
        description="The losses of the run so far, oldest first, as means over equal spans: at most 41.",
    )
    devices: tuple[DeviceReading, ...] = Field(
        default=(), description="The GPUs that the attempt computes on, or the processors; empty: not read yet."
    )
