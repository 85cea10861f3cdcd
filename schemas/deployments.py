"""Defines the registry's events about deployments, which lie beside those of the model, each deployment in one order of its own."""

from pydantic import Field

from schemas.artifacts import ArtifactRef
from schemas.base import EventData, Frozen

DEADLINE_SECONDS, BAKE_SECONDS = 600.0, 60.0
"""How long a version may take to be ready, and how long the one before it is kept warm, unless a deployment says otherwise."""


class Rollout(Frozen):
    """How a deployment comes to its next version."""

    deadline_seconds: float = Field(
        default=DEADLINE_SECONDS, description="For how long the version may not be ready before it is given up."
    )
    bake_seconds: float = Field(
        default=BAKE_SECONDS,
        description="For how long after the switch the version before is kept warm, so that the deployment can return to it at once.",
    )


class DeploymentChanged(EventData):
    """What all events about a deployment tell."""

    deployment: str = Field(description="Name of the deployment; its events are numbered by it.")
    model: str = Field(description="Name of the model; also the record's key. A deployment serves versions of one model.")
    generation: int = Field(
        description="Which wish of the deployment it is about, from 1; each DeploymentRequested is one."
    )
    version: str = Field(description="The version of that generation.")


class DeploymentRequested(DeploymentChanged):
    """Somebody wants a deployment to serve a version, which is pinned: whatever an alias names later, this one is meant."""

    artifact: ArtifactRef = Field(description="The artifact of the version, with its digest.")
    kind: str = Field(description="What the artifact is: `adapter` or `model`.")
    base_model: str = Field(description="Reference of the base model.")
    base_model_sha256: str | None = Field(description="Digest of the base model's files; null if it is not known.")
    alias: str | None = Field(default=None, description="The alias that named the version; null if none was asked for.")
    follow: bool = Field(
        default=False, description="Whether each move of the alias becomes the next generation of the deployment."
    )
    rollout: Rollout = Field(default=Rollout(), description="How the deployment comes to the version.")
    by: str = Field(description="Who wants it; `model@alias` if the alias moved that is followed.")
    reason: str = Field(description="Why; may be empty.")


class DeploymentReady(DeploymentChanged):
    """A version serves the deployment's callers from now on: for the first time, or again after DeploymentDegraded."""

    sha256: str = Field(description="Digest of the artifact that is served.")
    previous: str | None = Field(default=None, description="The version that served them before; null for none.")


class DeploymentDegraded(DeploymentChanged):
    """A version that should serve the deployment's callers does not."""

    reason: str = Field(description="One word, such as Failed, Missing, WrongModel or ProgressDeadlineExceeded.")
    message: str = Field(description="What was observed.")


class DeploymentRolledBack(DeploymentChanged):
    """A generation was given up; the deployment stays with, or returns to, the version before. Nothing repeats it by itself."""

    to_generation: int = Field(description="The generation that serves the callers.")
    to_version: str = Field(description="Its version.")
    reason: str = Field(description="One word, such as ProgressDeadlineExceeded or Aborted.")
    message: str = Field(description="Why, with what was observed.")
    by: str | None = Field(default=None, description="Who gave it up; null: the registry itself.")


class DeploymentRetired(DeploymentChanged):
    """A deployment serves nobody any more. Its name can be used again, for the same model."""

    by: str = Field(description="Who retired it.")
    reason: str = Field(description="Why; may be empty.")
