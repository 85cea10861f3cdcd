"""Holds the SQL of which the condition of a filter is made: columns of `registration r`, and tests of them with {} for each value."""

PURPOSE = "coalesce(r.purpose, 'answers')"
"""What a version is for; those of earlier releases write answers."""

TAG = "(r.tags ->> CAST({} AS text))"
"""The tag of a version with the name {}."""

METRIC = "CAST(r.metrics ->> CAST({} AS text) AS float8)"
"""The metric of a version with the name {}."""

_ALIASES = "SELECT {} FROM model m, jsonb_array_elements_text(m.named -> r.version) AS a(alias) WHERE m.key = r.model"


def no_alias() -> str:
    """Return the condition that no alias names the version."""
    return f"NOT EXISTS ({_ALIASES.format('1')})"


def some_alias(test: str) -> str:
    """Return the condition that an alias which names the version meets the test."""
    return f"coalesce(({_ALIASES.format(f'bool_or(alias {test})')}), false)"


def numbers(version: str) -> str:
    """Return a version as an array of its numbers, which is ordered as versions are."""
    return f"CAST(string_to_array({version}, '.') AS numeric[])"


def value(kind: str) -> str:
    """Return the place of a value of a type."""
    return f"CAST({{}} AS {kind})"


def one_of(kind: str) -> str:
    """Return the test that a column has one of the values of an array."""
    return f"= ANY(CAST({{}} AS {kind}[]))"


def without(column: str) -> str:
    """Return the condition that a column has no value."""
    return f"{column} IS NULL"
