"""Why: what HTTP answers say of models, with the meaning of each field for /docs; a list has what a get has."""

from datetime import datetime

from pydantic import Field

from schemas.artifacts import ArtifactRef
from schemas.base import Frozen, Name, Strict
from schemas.models import Lineage
from services.registry.domain.models import AliasMove
from services.registry.queries import ModelRow, Page, VersionRow


class VersionView(Frozen):
    """One version of a model; nothing but its aliases ever changes."""

    id: str = Field(description="`name@version`, as GET /models/{model_id} takes it.")
    name: str
    version: str = Field(description="Semantic version.")
    aliases: tuple[str, ...] = Field(description="Aliases that name this version now.")
    registered_at: datetime
    artifact: ArtifactRef
    metrics: dict[str, float | None] = Field(description="Metrics of the evaluation of this version; null: not measurable.")
    lineage: Lineage

    @classmethod
    def of(cls, row: VersionRow) -> "VersionView":
        """The view of a row."""
        made = row.registered
        return cls(
            id=f"{made.model}@{made.version}",
            name=made.model,
            version=made.version,
            aliases=row.aliases,
            registered_at=row.registered_at,
            artifact=made.artifact,
            metrics=made.metrics,
            lineage=made.lineage,
        )


class VersionPage(Frozen):
    """A page of versions, newest first."""

    items: tuple[VersionView, ...]
    next: str | None = Field(description="Cursor of the next page; null at the end.")

    @classmethod
    def of(cls, page: Page) -> "VersionPage":
        """The view of a page."""
        return cls(items=tuple(VersionView.of(row) for row in page.rows), next=page.next)


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
