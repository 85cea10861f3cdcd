"""Reads models and versions for HTTP: one statement per response; it sees committed rows and takes no locks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from schemas.base import NAME_PATTERN, Name
from schemas.versions import DELETED
from services.chassis.kernel.aggregate import Ref
from services.chassis.serving.paging import Listing, Page, PageAsked
from services.chassis.serving.problem import Problem
from services.chassis.serving.reads import Reads
from services.chassis.serving.web.parameters import LongText, Text
from services.registry import statements
from services.registry.domain.state import REGISTRATION, ModelState
from services.registry.search.grammar import names_column, search_of
from services.registry.search.tokens import FilterFault

_FILTERS = {**statements.FILTERS, "without": statements.NOT_IN_STATE}
_LISTING = Listing(statements.ITEM, statements.ROWS, statements.TIME, statements.KEY, _FILTERS)
_MOVES = Listing("item", "alias_move", "moved_at", "key", statements.MOVE_FILTERS)
_CHECKS = Listing("item", "gate_check", "checked_at", "key", statements.CHECK_FILTERS)
_REQUESTS = Listing("item", "promotion_request", "requested_at", "key", statements.REQUEST_FILTERS)

MODEL_ID = r"^[A-Za-z0-9._-]{1,128}(@[A-Za-z0-9._-]{1,128})?$"
"""Pattern of `name`, `name@version` and `name@alias`."""
ONE_VERSION = r"^[A-Za-z0-9._-]{1,128}@[A-Za-z0-9._-]{1,128}$"
"""Pattern of `name@version` and `name@alias`."""

VersionState = Literal["live", "deprecated", "archived", "deleted"]
"""The states of `schemas.versions`, for requests."""

VersionId = Annotated[str, Field(pattern=rf"^{NAME_PATTERN.strip('^$')}@[0-9]+\.[0-9]+\.[0-9]+$", max_length=256)]
"""Id of a version; aliases move, so none of them is recorded."""


class StoredVersion(NamedTuple):
    """One version as stored in its rows, not decoded."""

    registered: str
    registered_at: datetime
    aliases: str
    """As JSON."""
    description: str | None = None
    tags: str | None = None
    """As JSON."""
    state: str | None = None
    state_reason: str | None = None
    files_removed_at: datetime | None = None
    erased: str | None = None
    """As JSON."""


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model, decoded from its row."""

    name: str
    state: ModelState
    moves: tuple[str, ...] = ()
    """The newest moves of its aliases as JSON, where they were asked for."""


class VersionsAsked(PageAsked):
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
    state: VersionState | None = Field(
        default=None,
        description="Only versions in this state. Deleted ones are listed only where this or `filter` asks for a state.",
    )
    filter: LongText | None = Field(
        default=None,
        description="Only versions that meet this condition, as in `metrics.exact_match >= 0.9 AND NOT alias = 'production'`; "
        "docs/how-to/find-versions.md has the grammar. A page may then be shorter than `limit`, even empty, where `next` leads on.",
    )

    @property
    def filters(self) -> dict[str, str | None]:
        """The filters that a cursor of this list is bound to."""
        names = (*statements.FILTERS, *(("filter",) if self.filter else ()))
        return {**{name: getattr(self, name) for name in names}, "without": None if self._asks_for_a_state else DELETED}

    @property
    def _asks_for_a_state(self) -> bool:
        return self.state is not None or (self.filter is not None and names_column(self.filter, "state"))


class MovesAsked(PageAsked):
    """The query of a list of moves."""

    alias: Name | None = Field(default=None, description="Only moves of this alias.")


class ChecksAsked(PageAsked):
    """The query of a list of checks of gates."""

    alias: Name | None = Field(default=None, description="Only checks for this alias.")
    version: Name | None = Field(default=None, description="Only checks of this version.")


class RequestsAsked(PageAsked):
    """The query of a list of requests of promotions."""

    alias: Name | None = Field(default=None, description="Only requests for this alias.")
    status: Literal["waiting", "approved", "declined", "superseded"] | None = Field(
        default=None, description="Only requests of which this became."
    )


@dataclass(frozen=True, slots=True)
class ModelQueries:
    """Reads of one service's database."""

    reads: Reads

    async def model(self, name: str) -> ModelRow | None:
        """Return the model; None if it has no version."""
        row = await self.reads.row(statements.MODEL, name)
        if row is None:
            return None
        return _model_row(name, row[0])

    async def with_moves(self, name: str) -> ModelRow | None:
        """Return the model with the newest moves of its aliases; None if it has no version."""
        row = await self.reads.row(statements.MODEL_AND_MOVES, name)
        return None if row is None else _model_row(name, row[0], row[1])

    async def registration(self, name: str, version: str) -> Ref | None:
        """Return the reference to a version; None if the model has none such. A version that it has, it has for ever."""
        row = await self.reads.row(statements.REGISTRATION_OF, name, version)
        return Ref(REGISTRATION, row[0]) if row else None

    async def used_by(self, version_id: str, without: Sequence[str], most: int) -> list[str]:
        """Return what uses a version, at most `most`: jobs, open steps, deployments, and versions that continue from it and are in none of
        the states `without`."""
        return [row[0] for row in await self.reads.rows(statements.USED_BY, version_id, most, list(without))]

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

    async def recent(self, name: str, most: int) -> list[StoredVersion]:
        """Return the newest versions of a model, at most `most`."""
        return [StoredVersion(*row) for row in await self.reads.rows(statements.RECENT_VERSIONS, name, most)]

    async def page(self, asked: VersionsAsked) -> Page:
        """Return one page of versions after the cursor. Raises a 422 Problem for a filter that cannot be read, or a cursor of
        another list."""
        try:
            search = search_of(asked.filter) if asked.filter else None
            filters = asked.filters
        except FilterFault as fault:
            raise Problem.of(422, "The filter cannot be read", [fault.reason]) from fault
        return await _LISTING.page(self.reads, filters, asked.limit, asked.cursor, search)

    async def moves(self, name: str, asked: MovesAsked) -> Page:
        """Return one page of the moves of a model's aliases. Raises a 422 Problem for a cursor of another list."""
        return await _MOVES.page(self.reads, {"model": name, "alias": asked.alias}, asked.limit, asked.cursor)

    async def checks(self, name: str, asked: ChecksAsked) -> Page:
        """Return one page of the checks of a model's gates. Raises a 422 Problem for a cursor of another list."""
        filters = {"model": name, "alias": asked.alias, "version": asked.version}
        return await _CHECKS.page(self.reads, filters, asked.limit, asked.cursor)

    async def requests(self, name: str, asked: RequestsAsked) -> Page:
        """Return one page of the requests of promotions of a model. Raises a 422 Problem for a cursor of another list."""
        filters = {"model": name, "alias": asked.alias, "status": asked.status}
        return await _REQUESTS.page(self.reads, filters, asked.limit, asked.cursor)


def _model_row(name: str, text: str, moves: Sequence[str] = ()) -> ModelRow | None:
    state = ModelState.stored(text)
    return ModelRow(name, state, tuple(moves)) if state.count else None
