"""Why: all reads for HTTP in one place; they see committed rows and lock nothing. A list has what a get has."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.models import ModelRegistered
from services.chassis.paging import make_cursor, moment, read_cursor
from services.registry.domain.models import ModelState

_VERSION = """SELECT r.key, r.registered_at, CAST(r.state->'registered' AS text) AS registered,
       ARRAY(SELECT named.key FROM jsonb_each_text(m.state->'aliases') AS named
             WHERE named.value = r.version ORDER BY named.key) AS aliases
       FROM registration r JOIN model m ON m.key = r.model"""
_PAGE = f"{_VERSION} WHERE {{conditions}} ORDER BY r.registered_at DESC, r.key DESC LIMIT :limit"
_FIND = text(f"{_VERSION} WHERE r.model = :model AND r.version = :version")
_MODEL = text("SELECT CAST(state AS text), sequence FROM model WHERE key = :model")
_FILTERS = {
    "name": "r.model = :name",
    "alias": "m.state->'aliases'->>:alias = r.version",
    "job_id": "r.job_id = :job_id",
    "requester": "r.requester = :requester",
    "base_model": "r.base_model = :base_model",
    "dataset_sha256": "r.dataset_sha256 = :dataset_sha256",
}
_BEHIND = "(r.registered_at, r.key) < (:before_at, :before_key)"


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version as its rows hold it."""

    registered: ModelRegistered
    registered_at: datetime
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model as its row holds it."""

    name: str
    state: ModelState
    sequence: int
    """Number of the registry's latest event about the model."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which versions a list shows; None does not filter."""

    name: str | None = None
    alias: str | None = None
    job_id: str | None = None
    requester: str | None = None
    base_model: str | None = None
    dataset_sha256: str | None = None

    @property
    def query(self) -> dict[str, str | None]:
        """What a cursor of this list is bound to."""
        return {name: getattr(self, name) for name in _FILTERS}


@dataclass(frozen=True, slots=True)
class Page:
    """Versions, newest first, and the cursor of the page behind; None at the end."""

    rows: Sequence[VersionRow]
    next: str | None


@dataclass(frozen=True, slots=True)
class ModelQueries:
    """Reads of one service's database."""

    engine: AsyncEngine

    async def model(self, name: str) -> ModelRow | None:
        """The model; None where it has no version."""
        async with self.engine.connect() as connection:
            row = (await connection.execute(_MODEL, {"model": name})).one_or_none()
        if row is None:
            return None
        state = ModelState.stored(row[0])
        return ModelRow(name, state, row[1]) if state.versions else None

    async def version(self, name: str, version: str) -> VersionRow | None:
        """One version of a model."""
        async with self.engine.connect() as connection:
            found = await connection.execute(_FIND, {"model": name, "version": version})
            row = found.mappings().one_or_none()
        return None if row is None else _version(row)

    async def page(self, filters: Filters, limit: int, cursor: str | None) -> Page:
        """At most `limit` versions behind `cursor`. Raises a 422 Problem for a cursor of another list."""
        given = {name: value for name, value in filters.query.items() if value is not None}
        conditions = ["r.registered_at IS NOT NULL", *(_FILTERS[name] for name in given)]
        place: dict[str, object] = {}
        if cursor is not None:
            at, key = read_cursor(cursor, filters.query, (moment, str))
            place = {"before_at": at, "before_key": key}
            conditions.append(_BEHIND)
        statement = text(_PAGE.format(conditions=" AND ".join(conditions)))
        async with self.engine.connect() as connection:
            found = await connection.execute(statement, {**given, **place, "limit": limit + 1})
            rows = found.mappings().all()
        versions = [_version(row) for row in rows[:limit]]
        if len(rows) <= limit:
            return Page(versions, None)
        last = rows[limit - 1]
        return Page(versions, make_cursor(filters.query, [last["registered_at"].isoformat(), last["key"]]))


def _version(row: RowMapping) -> VersionRow:
    registered = ModelRegistered.model_validate_json(row["registered"])
    return VersionRow(registered, row["registered_at"], tuple(row["aliases"]))
