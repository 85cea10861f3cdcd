"""The port between a deployment and whatever serves its versions: what is wanted of a slot, and what a driver sees there.

The reconciler calls a driver with targets and reads what the driver observes; it never waits for a model to load. A driver keeps no
memory over a restart of the registry: after one, `ensure` is called again for every slot that is wanted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from schemas.artifacts import ArtifactRef
from schemas.deployments import LOCAL

Slot = str
"""The name of a place of a deployment, one for each of its generations, such as `g3`: to a driver it is only a key. Which place answers
callers, and which is being rolled out, only the deployment knows, so that nothing moves from one place to another at a switch."""
ServingState = Literal["starting", "ready", "failed", "draining"]
"""starting: it is loaded, probed, or restarted after it died; ready: it answered a request a moment ago; failed: it does not serve, for
the reason given, and the driver tries again only where that can help; draining: it answers what it has begun and takes nothing new."""
READY = "Ready"
"""The reason of a slot in state `ready`."""


@dataclass(frozen=True, slots=True)
class Target:
    """What one slot of a deployment has to serve."""

    deployment: str
    slot: Slot
    model: str
    version: str
    artifact: ArtifactRef
    kind: str
    """`adapter` or `model`, as in ModelRegistered."""
    base_model: str
    """Reference of the base model, as in Lineage; of a whole model that of the model it began as, which is not read."""
    base_model_sha256: str | None
    """Digest of the base model's files, as in Lineage; None if nobody recorded it, so that any base is taken."""
    driver: str = LOCAL
    """The driver that serves it, one of `schemas.deployments.DRIVERS`."""
    predictions: ArtifactRef | None = None
    """The answers that an evaluation of the version recorded; None: none is compared, and all other checks are made."""

    @property
    def served(self) -> str:
        """The name under which the version is asked: the `model` of a request to the address of its slot."""
        return f"{self.model}@{self.version}"

    @property
    def place(self) -> tuple[str, Slot]:
        """Deployment and slot, of which a driver serves one target at a time."""
        return self.deployment, self.slot


@dataclass(frozen=True, slots=True)
class Observed:
    """What a driver sees of one slot."""

    deployment: str
    slot: Slot
    served: str
    """`model@version`."""
    sha256: str
    """Digest of the artifact that is served, or would be."""
    state: ServingState
    reason: str
    """One word in CamelCase. ready: Ready. starting: Starting, Verifying, Loading, Probing, Restarting. failed: DigestMismatch,
    ArtifactMissing, BaseMissing, FilesUnavailable, WrongBase, Unloadable, OutOfMemory, PortTaken, NotAnswering, EmptyAnswer,
    SameAsBase, AnswerDiffers, DriverUnavailable, and those that docs/deployments.md has for a driver. draining: Draining."""
    message: str
    """What happened, and what to do about it; empty when ready."""
    address: str | None
    """The URL to which `/v1/chat/completions` is added; None unless it is ready or draining."""
    since: datetime
    """When it came into this state for this reason."""
    headers: tuple[tuple[str, str], ...] = ()
    """Headers that a request to the address needs; one is a secret, which no event and no log may contain."""
    called: str = ""
    """What its server calls the version, where that is not `served`."""


class Driver(Protocol):
    """Serves targets. Its methods are called by one reconciler, in one event loop, and raise no fault of a target: `observed` tells it."""

    async def ensure(self, target: Target) -> None:
        """Serve a target in its slot; return at once. It does nothing if the slot serves or starts it already, tries once more if it
        failed, and replaces another target of the slot."""

    async def observed(self) -> Sequence[Observed]:
        """Return every slot that was ensured and is not yet removed, ordered by deployment and slot."""

    async def remove(self, deployment: str, slot: Slot, drain_seconds: float) -> None:
        """Stop serving a slot; return at once. What it has begun to answer has `drain_seconds` to end. Nothing happens if the slot is
        empty."""

    async def stand_by(self, drain_seconds: float) -> None:
        """Let another process of the registry serve instead: stop what only this process serves, as `remove` does, and forget what runs
        elsewhere, which goes on; return at once."""

    async def close(self) -> None:
        """Stop everything that this process serves, and return when it is. What runs elsewhere goes on."""
