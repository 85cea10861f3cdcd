"""Reads models and versions for HTTP: one statement per response; it sees committed rows and takes no locks."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, NamedTuple

from pydantic import Field

from schemas.base import NAME_PATTERN, Frozen, Name
from services.chassis.serving.paging import Listing, Page
from services.chassis.serving.reads import Reads
from services.chassis.serving.web.parameters import Cursor, LongText, Text
from services.registry import statements
from services.registry.domain.models import ModelState

_LISTING = Listing(statements.ITEM, statements.ROWS, statements.TIME, statements.KEY, statements.FILTERS)

VersionId = Annotated[str, Field(pattern=rf"^{NAME_PATTERN.strip('^$')}@[0-9]+\.[0-9]+\.[0-9]+$", max_length=256)]
"""Id of a version; aliases move, so none of them is recorded."""


class StoredVersion(NamedTuple):
    """One version as stored in its rows, not decoded."""

    registered: str
    registered_at: datetime
    aliases: str
    """As JSON."""


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model, decoded from its row."""

    name: str
    state: ModelState
    sequence: int
    """Number of the registry's latest event about the model."""


class VersionsAsked(Frozen):
    """The query of a list of versions; a filter that is None does not filter."""

    name: Name | None = Field(default=None, description="Only versions of this model.")
    alias: Name | None = Field(default=None, description="Only versions that this alias names.")
    job_id: Text | None = Field(default=None, description="Only versions that this job made.")
    requester: LongText | None = Field(default=None, description="Only versions of jobs of this requester.")
    base_model: LongText | None = Field(default=None, description="Only versions of this base model.")
    dataset_sha256: Text | None = Field(default=None, description="Only versions made from this data set.")
    started_from: VersionId | None = Field(
        default=None, description="Only versions whose training started from this one, `name@version`; an alias names none."
    )
    limit: int = Field(default=50, ge=1, le=200, description="The most versions on a page.")
    cursor: Cursor | None = Field(
        default=None, description="`next` of the previous page, which must have the same filters."
    )

    @property
    def filters(self) -> dict[str, str | None]:
        """The filters that a cursor of this list is bound to."""
        return {name: getattr(self, name) for name in statements.FILTERS}


@dataclass(frozen=True, slots=True)
class ModelQueries:
    """Reads of one service's database."""

    reads: Reads

    async def model(self, name: str) -> ModelRow | None:
        """Return the model; None if it has no version."""
        row = await self.reads.row(statements.MODEL, name)
        if row is None:
            return None
        state = ModelState.stored(row[0])
        return ModelRow(name, state, row[1]) if state.versions else None

    async def version(self, name: str, wanted: str) -> StoredVersion | None:
        """Return the version of a model that `wanted` names, as a version or an alias; the highest version if it is empty.

        A version takes precedence over an alias of the same name.
        """
        row = await (
            self.reads.row(statements.NAMED_VERSION, name, wanted)
            if wanted
            else self.reads.row(statements.HIGHEST_VERSION, name)
        )
        return StoredVersion(*row) if row else None

    async def page(self, asked: VersionsAsked) -> Page:
        """Return one page of versions after the cursor. Raises a 422 Problem for a cursor of another list."""
        return await _LISTING.page(self.reads, asked.filters, asked.limit, asked.cursor)
