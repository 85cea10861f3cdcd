"""Wishes of deployments and what is seen of their slots, for tests of what is decided about them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.artifacts import ArtifactRef
from schemas.deployments import DeploymentChanged, DeploymentRequested, Rollout
from services.chassis.kernel.aggregate import Decision
from services.registry.domain.deployments.deciding import Seen
from services.registry.domain.deployments.state import DeploymentState

START = datetime(2030, 1, 1, tzinfo=UTC)


def wish(version: str, **fields: Any) -> DeploymentRequested:
    """Return the wish for a version; equal versions have equal digests."""
    about = {
        "deployment": "support", "model": "router", "generation": 0, "kind": "adapter", "base_model": "base",
        "base_model_sha256": None, "by": "ana", "reason": "because", "rollout": Rollout(deadline_seconds=60, bake_seconds=30),
        "artifact": ArtifactRef(uri=f"/artifacts/{version}", sha256=version.replace(".", "").ljust(64, "0"), size=1),
    }  # fmt: skip
    return DeploymentRequested.model_validate({**about, "version": version, **fields})


def serving(wanted: DeploymentRequested | None) -> Seen:
    """Return what is seen of a slot that serves what it should."""
    assert wanted is not None
    return Seen(f"{wanted.model}@{wanted.version}", wanted.artifact.sha256, "ready", "Ready", "")


def failing(reason: str, seconds: float = 0.0) -> Seen:
    """Return what is seen of a slot that failed so long ago."""
    return Seen("", "", "failed", reason, "it broke", seconds)


class Life:
    """A deployment to which decisions are applied, one second apart."""

    def __init__(self) -> None:
        self.state, self.seconds = DeploymentState(), 0.0
        self.told: list[DeploymentChanged] = []

    @property
    def now(self) -> datetime:
        """The time now."""
        return START + timedelta(seconds=self.seconds)

    def take(self, decision: Decision | None) -> DeploymentChanged | None:
        """Apply a decision and return its event."""
        if decision is None:
            return None
        assert isinstance(decision.data, DeploymentChanged)
        self.seconds += 1
        self.state = self.state.model_copy(update=dict(self.state.after(decision.data, self.now)))
        self.told.append(decision.data)
        return decision.data

    @property
    def events(self) -> list[str]:
        """What happened, as words."""
        return [f"{event.type_name().removeprefix('Deployment')} {event.version}" for event in self.told]
