"""Defines what the service tells the recorder, one JSON object per line, and what that answers."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from schemas.base import Frozen


class Where(Frozen):
    """The first line: where runs are recorded."""

    uri: str
    experiment: str


class Begun(Frozen):
    """An attempt has begun; it continues the run of its step if there is one."""

    message: Literal["begun"] = "begun"
    run: str = Field(description="Name of the run, `job/step`.")
    at: int = Field(description="Milliseconds since 1970, here and below.")
    params: dict[str, str] = Field(description="Settings of the step; they are recorded once.")
    tags: dict[str, str] = Field(description="What is known of the attempt when it begins.")


class Measured(Frozen):
    """Something was measured at an optimiser step."""

    message: Literal["measured"] = "measured"
    run: str
    at: int
    step: int
    values: dict[str, float]


class Ended(Frozen):
    """The attempt has ended."""

    message: Literal["ended"] = "ended"
    run: str
    at: int
    status: Literal["FINISHED", "FAILED", "KILLED", "SCHEDULED"] = Field(description="SCHEDULED: it waits to be continued.")
    metrics: dict[str, float] = Field(default={}, description="Of the result.")
    tags: dict[str, str] = Field(default={}, description="What is known only now.")


class Lost(Frozen):
    """Another worker has the attempt, and records it from now on."""

    message: Literal["lost"] = "lost"
    run: str


Told = Begun | Measured | Ended | Lost
TOLD: TypeAdapter[Told] = TypeAdapter(Annotated[Told, Field(discriminator="message")])


class Notice(Frozen):
    """How the recorder fares, told when it changes."""

    dropped: int = Field(default=0, description="Measurements that were dropped since the last notice.")
    trouble: str | None = Field(default=None, description="Why nothing can be recorded now; null: recording works.")
