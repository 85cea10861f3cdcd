"""What the process and its parent say to each other over pipes, one JSON object a line."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from schemas.base import Frozen

SECRET_HEADER = "x-neuroweaver-secret"  # noqa: S105  # the name of the header
"""The header in which whoever asks the process over HTTP sends the secret of `Start`."""


class Start(Frozen):
    """The first line that the process reads."""

    base: str
    """Folder of the model."""
    secret: str
    port: int = 0
    """0: a free one."""
    lanes: int | None = None
    """Batches that are decoded beside each other; None: one for each core, at most four, and one on a GPU."""
    rows: int = 32
    cells: int = 262_144
    waiting: int = 256
    body: int = 2 * 1024 * 1024
    tokens: int = 4096


class Load(Frozen):
    """Serve a model under a name."""

    do: Literal["load"] = "load"
    name: str
    sha256: str
    folder: str
    kind: Literal["adapter", "model"]


class Unload(Frozen):
    """Take no new requests for a name, and forget it when its answers are done, or after some seconds."""

    do: Literal["unload"] = "unload"
    name: str
    seconds: float


Command = Annotated[Load | Unload, Field(discriminator="do")]
COMMAND: TypeAdapter[Load | Unload] = TypeAdapter(Command)


class Listening(Frozen):
    """The base model is loaded, and the process listens on this port of 127.0.0.1."""

    said: Literal["listening"] = "listening"
    port: int


class Loaded(Frozen):
    """A name is served."""

    said: Literal["loaded"] = "loaded"
    name: str


class Unloaded(Frozen):
    """A name is no longer served."""

    said: Literal["unloaded"] = "unloaded"
    name: str


class Refusal(Frozen):
    """A name is not served, or, where it is None, the base model."""

    said: Literal["refused"] = "refused"
    name: str | None
    reason: str
    message: str


Reply = Annotated[Listening | Loaded | Unloaded | Refusal, Field(discriminator="said")]
REPLY: TypeAdapter[Listening | Loaded | Unloaded | Refusal] = TypeAdapter(Reply)
