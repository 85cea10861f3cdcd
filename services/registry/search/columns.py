"""Says what a filter can ask of each column of the list of versions, and makes the condition of one comparison."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from schemas.base import in_calendar
from services.registry.search import statements
from services.registry.search.tokens import FilterFault, Token

COMPARISONS = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_EQUAL = ("=", "!=")
_NUMBER, _TIME, _ALIAS = "number", "time", "alias"


class Condition(NamedTuple):
    """A condition on a version as SQL with {} for each value."""

    sql: str
    values: tuple[Any, ...] = ()
    narrows: str = ""
    """The column whose index leads to the versions that meet it, newest first; empty if none does."""
    conjuncts: tuple["Condition", ...] = ()
    """The conditions that it joins with AND."""


class Column(NamedTuple):
    """A column of the list."""

    kind: str
    sql: str
    key: tuple[str, ...] = ()
    """The value for {} in `sql`: the name of a metric."""


TIME = "registered_at"
COLUMNS: Mapping[str, Column] = {
    "id": Column("text", "(r.model || '@' || r.version)"),
    "name": Column("text", "r.model"),
    "version": Column("version", "r.version"),
    "purpose": Column("text", statements.PURPOSE),
    "state": Column("text", "r.version_state"),
    "erased_rows": Column(_NUMBER, "r.erased_rows"),
    TIME: Column(_TIME, "r.registered_at"),
    "alias": Column(_ALIAS, "alias"),
    **{
        name: Column("text", f"r.{name}")
        for name in ("job_id", "requester", "base_model", "dataset_sha256", "started_from")
    },
}
INDEXED = ("job_id", "started_from", "dataset_sha256", "name", "requester", "base_model")
"""The columns whose index leads to the versions with one value; the earlier ones lead to fewer versions as a rule."""
_KEYED: Mapping[str, Column] = {
    "tags": Column("text", statements.TAG),
    "metrics": Column(_NUMBER, statements.METRIC),
}
_VALUES = {"text": "text", "version": "text", _ALIAS: "text", _NUMBER: "float8", _TIME: "timestamptz"}
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){2}")


def column_of(token: Token) -> Column:
    """Return the column that a token names. Raises FilterFault."""
    group, dot, key = token.text.partition(".")
    if not dot and token.kind == "name" and group in COLUMNS:
        return COLUMNS[group]
    if dot and group in _KEYED:
        name = key[1:-1].replace('""', '"') if key.startswith('"') else key
        return _KEYED[group]._replace(key=(name,))
    known = ", ".join((*COLUMNS, *(f"{group}.NAME" for group in _KEYED)))
    raise FilterFault(token, "a column is needed, and this is none", f"use {known}")


def comparison(column: Column, name: Token, sign: Token, value: Token) -> Condition:
    """Return the condition of `column sign value`; sign is a comparison or LIKE. Raises FilterFault."""
    if sign.text not in COMPARISONS:
        return _like(column, name, sign, value)
    asked, operator = _value(column, name, value), COMPARISONS[sign.text]
    if column.kind in ("text", _ALIAS) and sign.text not in _EQUAL:
        raise FilterFault(sign, f"the column {name.text} is a text and has no order", "use =, !=, LIKE or IN")
    if column.kind == "version" and sign.text not in _EQUAL:
        if not _VERSION.fullmatch(asked):
            raise FilterFault(value, f"{name.text} is compared with a version", "write one as '1.2.0'")
        ours, theirs = statements.numbers(column.sql), statements.numbers(statements.value("text"))
        return Condition(f"{ours} {operator} {theirs}", (asked,))
    found = _of(column, f"{operator} {statements.value(_VALUES[column.kind])}", asked)
    led = (sign.text == "=" and name.text in INDEXED) or (sign.text != "!=" and name.text == TIME)
    return found._replace(narrows=name.text if led else "")


def among(column: Column, name: Token, values: Sequence[Token]) -> Condition:
    """Return the condition that the column has one of the values. Raises FilterFault."""
    asked = [_value(column, name, value) for value in values]
    return _of(column, statements.one_of(_VALUES[column.kind]), asked)


def absent(column: Column) -> Condition:
    """Return the condition that the column has no value."""
    if column.kind == _ALIAS:
        return Condition(statements.no_alias())
    return Condition(statements.without(column.sql), column.key)


def _like(column: Column, name: Token, sign: Token, value: Token) -> Condition:
    if column.kind in (_NUMBER, _TIME):
        raise FilterFault(sign, f"LIKE compares texts, and the column {name.text} is a {column.kind}", "use <= or >=")
    pattern = _value(column, name, value)
    if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
        raise FilterFault(
            value, "a pattern cannot end with \\, which says that the next sign is meant as it is", "write \\\\"
        )
    return _of(column, f"LIKE {statements.value('text')}", pattern)


def _of(column: Column, test: str, value: Any) -> Condition:
    if column.kind != _ALIAS:
        return Condition(f"{column.sql} {test}", (*column.key, value))
    if test.startswith("<>"):
        return Condition(f"NOT ({_of(column, test.replace('<>', '='), value).sql})", (value,))
    return Condition(statements.some_alias(test), (value,))


def _value(column: Column, name: Token, token: Token) -> Any:
    """Return the value of a token as the column needs it. Raises FilterFault."""
    if column.kind == _NUMBER:
        if token.kind != "number":
            raise FilterFault(token, f"{name.text} is compared with a number", f"write a number, as in {name.text} >= 0.9")
        return float(token.text)
    if token.kind != "text":
        remedy = f"write it in single quotes, as in {name.text} = 'value'"
        raise FilterFault(token, f"{name.text} is compared with a text", remedy)
    text = token.text[1:-1].replace("''", "'")
    return _moment(name, token, text) if column.kind == _TIME else text


def _moment(name: Token, token: Token, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
        return in_calendar(at if at.tzinfo else at.replace(tzinfo=UTC))
    except ValueError:
        remedy = "write one as '2026-11-02' or '2026-11-02T03:19:00Z'"
        raise FilterFault(token, f"{name.text} is compared with a time", remedy) from None
