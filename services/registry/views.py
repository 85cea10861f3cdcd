"""Defines the HTTP API's views of models, documented for /docs; a list has summaries, a single get has everything."""

import json
from datetime import datetime

from pydantic import Field

from schemas.artifacts import ArtifactRef
from schemas.base import Frozen, Name, Strict
from schemas.models import Lineage, ModelRegistered
from services.registry.domain.models import AliasMove
from services.registry.queries import ModelRow, StoredVersion


class _Named(Frozen):
    """What every view of a version begins with."""

    id: str = Field(description="`name@version`, as GET /models/{model_id} takes it.")
    name: str
    version: str = Field(description="Semantic version.")
    aliases: tuple[str, ...] = Field(description="Aliases that name this version now.")
    registered_at: datetime


class VersionView(_Named):
    """One version of a model; nothing but its aliases ever changes."""

    artifact: ArtifactRef
    metrics: dict[str, float | None] = Field(description="Metrics of the evaluation of this version; null: not measurable.")
    lineage: Lineage

    @classmethod
    def of(cls, made: ModelRegistered, registered_at: datetime, aliases: tuple[str, ...]) -> "VersionView":
        """The view of a version that `aliases` name."""
        return cls(
            id=f"{made.model}@{made.version}",
            name=made.model,
            version=made.version,
            aliases=aliases,
            registered_at=registered_at,
            artifact=made.artifact,
            metrics=made.metrics,
            lineage=made.lineage,
        )


def stored_version(stored: StoredVersion) -> VersionView:
    """The view of what the rows have."""
    made = ModelRegistered.model_validate_json(stored.registered)
    return VersionView.of(made, stored.registered_at, tuple(json.loads(stored.aliases)))


class VersionSummary(_Named):
    """One version in a list; GET /models/{model_id} has its artifact and its lineage."""

    job_id: str = Field(description="The job that made it.")
    requester: str = Field(description="Who asked for the job.")
    base_model: str = Field(description="Reference of the base model.")
    dataset_sha256: str | None = Field(description="Digest of the data-set snapshot.")
    metrics: dict[str, float | None] = Field(description="Metrics of the evaluation of this version; null: not measurable.")


class VersionPage(Frozen):
    """A page of versions, newest first."""

    items: tuple[VersionSummary, ...]
    next: str | None = Field(description="Cursor of the next page; null at the end.")


class AliasesView(Frozen):
    """A model's aliases now, and how they came to be."""

    name: str
    sequence: int = Field(description="Number of the latest event about the model; the ETag.")
    aliases: dict[str, str] = Field(description="Version by alias.")
    moves: tuple[AliasMove, ...] = Field(description="How aliases moved, oldest first.")

    @classmethod
    def of(cls, row: ModelRow) -> "AliasesView":
        """The view of a model's row."""
        return cls(name=row.name, sequence=row.sequence, aliases=row.state.aliases, moves=row.state.moves)


class AliasTarget(Strict):
    """Where an alias is to point."""

    version: Name = Field(description="A version of the model.")
