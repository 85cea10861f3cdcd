"""Builds the SQL of generated columns that store a row's list item as JSON text, computed when the row is written.

PostgreSQL generates a column from immutable functions only, so the text does not depend on a session's settings, and every
writer, replay and migration gives the same. Table definitions and migrations use these functions: a released one never
changes.
"""

from collections.abc import Mapping


def beginning_of(fields: Mapping[str, str]) -> str:
    """Return SQL of a JSON object without its closing brace; `fields` are SQL of JSON texts by name."""
    return " || ".join(
        f"""'{"," if number else "{"}"{name}":' || {value}""" for number, (name, value) in enumerate(fields.items())
    )


def object_of(fields: Mapping[str, str]) -> str:
    """Return SQL of a JSON object."""
    return f"{beginning_of(fields)} || '}}'"


def text_of(text: str) -> str:
    """Return SQL of the JSON of a text; null for NULL."""
    return f"CAST(jsonb_object(ARRAY['', {text}]) -> '' AS text)"


def number_of(number: str) -> str:
    """Return SQL of the JSON of a whole number, or of what is JSON already; null for NULL."""
    return f"coalesce(CAST({number} AS text), 'null')"


def time_of(time: str) -> str:
    """Return SQL of the JSON of a time in UTC, as in all responses: 2026-11-02T03:19:00Z, with six digits if it has a
    fraction."""
    parts = {"year": 4, "month": 2, "day": 2, "hour": 2, "minute": 2, "second": len("00.000000")}
    year, month, day, hour, minute, second = (
        f"lpad(CAST(extract({part} FROM timezone('UTC', {time})) AS text), {digits}, '0')" for part, digits in parts.items()
    )
    written = f"{year} || '-' || {month} || '-' || {day} || 'T' || {hour} || ':' || {minute} || ':' || {second}"
    return f"""coalesce('"' || replace({written}, '.000000', '') || 'Z"', 'null')"""
