"""Defines the registry's events about models, ordered per model."""

from pydantic import Field, JsonValue

from schemas.artifacts import ArtifactRef
from schemas.base import EventData, Frozen
from schemas.jobs import StepResult


class Lineage(Frozen):
    """Where a version comes from."""

    job_id: str = Field(description="The job that made it.")
    step: str = Field(description="The register step of the job.")
    requester: str = Field(description="Who asked for the job.")
    base_model: str = Field(description="Reference of the base model.")
    base_model_sha256: str | None = Field(description="Digest of the base model's files as prepare saw them.")
    dataset_sha256: str | None = Field(description="Digest of the data-set snapshot.")
    configuration: dict[str, JsonValue] = Field(
        default_factory=dict, description="Recipe of the training that made the artifact, as its `training.json` has it."
    )
    results: dict[str, StepResult] = Field(description="Results of every step that led here, by step.")


class ModelRegistered(EventData):
    """A new version of a model exists and never changes."""

    model: str = Field(description="Model name and the record's key.")
    version: str = Field(
        description="Semantic version, from 1.0.0: another base model is a major step from the version before, other data or "
        "another recipe a minor one, the same again a patch."
    )
    artifact: ArtifactRef = Field(description="The adapter.")
    lineage: Lineage
    metrics: dict[str, float | None] = Field(description="Metrics of the evaluation of this version, by name.")


class ModelPromoted(EventData):
    """An alias moved to a version."""

    model: str = Field(description="Model name and the record's key.")
    alias: str = Field(description="The alias.")
    version: str = Field(description="The version it names from now on.")
    previous: str | None = Field(description="The version it named before; null if it is new.")
