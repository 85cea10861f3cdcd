"""Holds the SQL of what is read of data sets: one statement per response, without locks."""

from services.registry import statements as versions

_FOUND = (
    """SELECT CAST(state -> 'registered' AS text), registered_at, CAST(state -> 'remains' AS text), erasing FROM dataset"""
)
_NEWEST = "ORDER BY registered_at DESC, key DESC"

NEWEST_DATASET = f"{_FOUND} WHERE name = $1 AND registered_at IS NOT NULL {_NEWEST} LIMIT 1"
"""Reads the data set of a name that was registered last."""

CALLED = f"{_FOUND} WHERE name = $1 AND starts_with(sha256, $2) {_NEWEST} LIMIT 2"
"""Reads the data sets of a name whose digest begins with $2, two at most: more than one is too many."""

KNOWN = f"SELECT sha256 FROM dataset WHERE name = $1 AND registered_at IS NOT NULL {_NEWEST} LIMIT $2"
"""Reads the digests of a name that were registered last."""

FILTERS = {
    "name": "name = {}", "licence": "licence = {}", "job_id": "job_id = {}", "registered_by": "registered_by = {}",
}  # fmt: skip
"""The condition of each filter of the list of data sets, with {} for the value."""

_ITEM, _ROWS, _TIME, _KEY = versions.ITEM, versions.ROWS, versions.TIME, versions.KEY
MADE_FROM = (
    _ITEM, _ROWS, _TIME, _KEY,
    {"sha256": "r.dataset = {}", "name": "r.dataset IN (SELECT sha256 FROM dataset WHERE name = {})"},
)  # fmt: skip
"""What the list of the versions made from a data set shows of which rows, its order, and the condition that says which data set."""
