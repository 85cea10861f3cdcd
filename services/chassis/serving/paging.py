"""Reads lists page by page: a page starts after the last row's sort key, so that inserts neither repeat nor hide rows.

A cursor is opaque to callers and belongs to one query: it contains the tie-breaker of the order, and its filters are
checked.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import Field

from schemas.base import Frozen, in_calendar, storable
from schemas.reasons import Reason, shown
from services.chassis.serving import statements
from services.chassis.serving.problem import Problem
from services.chassis.serving.reads import Reads
from services.chassis.serving.web.parameters import Cursor

_TEXT = json.JSONEncoder(separators=(",", ":")).encode


class PageAsked(Frozen):
    """The part of the query of every list that says which page."""

    limit: int = Field(default=50, ge=1, le=200, description="The most items on a page.")
    cursor: Cursor | None = Field(
        default=None, description="`next` of the previous page, which must have the same filters."
    )


class Page(NamedTuple):
    """One page of a list: items as JSON, newest first, and the cursor of the next page; None at the end."""

    items: list[str]
    next: str | None


class Search(NamedTuple):
    """Conditions that a caller composed, as SQL with {} for each value. A page of a search examines a bounded number of rows."""

    narrowing: tuple[str, ...]
    """Conditions that an index serves: only rows that meet them are examined."""
    condition: str
    """What an examined row must meet to be on the page."""
    values: tuple[Any, ...]
    """The values of the narrowing conditions, then those of the condition."""


class Listing(NamedTuple):
    """A list of rows that have a time, newest first. All fields are SQL."""

    item: str
    """Text: a row as JSON."""
    rows: str
    """The tables."""
    time: str
    key: str
    filters: Mapping[str, str]
    """Conditions by name, with {} for the value."""

    async def page(
        self, reads: Reads, query: Mapping[str, str | None], limit: int, cursor: str | None, search: Search | None = None
    ) -> Page:
        """Return at most `limit` items after `cursor`; a filter of `query` that is None does not filter.

        `query` has the text of a search, too, so that a cursor is bound to it. A page of a search may be shorter, even empty, where
        further ones follow. Raises a 422 Problem for a cursor of another list.
        """
        filters = {name: value for name, value in query.items() if value is not None and name in self.filters}
        behind = read_cursor(cursor, query, (moment, str)) if cursor is not None else []
        conditions = tuple(self.filters[name] for name in filters)
        if search is None:
            statement = statements.page(self[:4], conditions, bool(behind), limit)
        else:
            statement = statements.searched_page(self[:4], conditions, bool(behind), search[:2], limit)
        row = await reads.row(statement, *filters.values(), *behind, *(search.values if search else ()))
        assert row is not None
        items, at, key, more = row
        return Page(items[:limit], make_cursor(query, [at.isoformat(), key]) if more else None)


def make_cursor(query: Mapping[str, str | None], last: Sequence[str]) -> str:
    """Make the cursor that continues after the row with the sort key `last`, for a list filtered by `query`."""
    text = _TEXT([_digest(query), *last])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str, query: Mapping[str, str | None], parts: Sequence[Callable[[str], Any]]) -> list[Any]:
    """Return the sort key in a cursor; each part is parsed by the matching function of `parts`, which may raise ValueError.

    Raises a 422 Problem for a cursor that is broken or belongs to another query.
    """
    try:
        digest, *last = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        key = [part(_plain(text)) for part, text in zip(parts, last, strict=True)]
    except (ValueError, TypeError, OverflowError):
        raise _refused(cursor, "it is not a cursor of this list", "pass `next` of the page before unchanged") from None
    if digest != _digest(query):
        raise _refused(cursor, "it belongs to a list with other filters", "start again without a cursor")
    return key


def _plain(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError("not a text")
    return storable(text)


def moment(text: str) -> datetime:
    """Return the time in a sort key. Raises ValueError if a database cannot store it."""
    return in_calendar(datetime.fromisoformat(text).astimezone(UTC))


def _digest(query: Mapping[str, str | None]) -> str:
    return _digest_of(tuple(query.items()))


@lru_cache(256)
def _digest_of(query: tuple[tuple[str, str | None], ...]) -> str:
    return hashlib.sha256(json.dumps(dict(query), sort_keys=True).encode()).hexdigest()[:12]


def _refused(cursor: str, message: str, remedy: str) -> Problem:
    reason = Reason(field="cursor", value=shown(cursor), message=message, remedy=remedy)
    return Problem.of(422, "The cursor is not valid", [reason])
