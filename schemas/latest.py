"""Defines the record that says how a model is now, for consumers that want only that and read a compacted topic."""

from pydantic import Field

from schemas.base import EventData, Frozen


class Deployed(Frozen):
    """A deployment of a model."""

    name: str = Field(description="Name of the deployment.")
    version: str | None = Field(description="The version that answers callers; null if none does yet.")
    sha256: str | None = Field(description="Digest of its artifact; null likewise.")
    target: str | None = Field(description="The version that is being rolled out; null: none is.")
    degraded: bool = Field(description="Whether it does not serve as it should, as DeploymentDegraded said.")
    sequence: int = Field(description="Number of its latest event.")


class ModelChanged(EventData):
    """A model or one of its deployments changed; this is how they are now. Of two records the one with the higher numbers is newer."""

    model: str = Field(description="Name of the model; also the record's key.")
    version: str | None = Field(description="Its highest version that is not deleted; null: it has none.")
    aliases: dict[str, str] = Field(description="Version by alias.")
    deployments: tuple[Deployed, ...] = Field(description="Its deployments that somebody wants, by name.")
    sequence: int = Field(description="Number of the model's latest event on `neuroweaver.models`.")
