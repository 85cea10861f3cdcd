"""What a list tells of a row is finished when the row is written: SQL of a generated column that holds it as JSON text.

PostgreSQL generates a column from immutable functions only, so no text depends on a session's settings, and no writer, replay or
migration can make another. Tables are described and migrated with these functions: a released one never changes.
"""

from collections.abc import Mapping


def beginning_of(fields: Mapping[str, str]) -> str:
    """SQL of a JSON object but for its closing brace; `fields` are SQL of JSON texts by name."""
    return " || ".join(
        f"""'{"," if number else "{"}"{name}":' || {value}""" for number, (name, value) in enumerate(fields.items())
    )


def object_of(fields: Mapping[str, str]) -> str:
    """SQL of a JSON object."""
    return f"{beginning_of(fields)} || '}}'"


def text_of(text: str) -> str:
    """JSON of a text; null for NULL."""
    return f"CAST(jsonb_object(ARRAY['', {text}]) -> '' AS text)"


def number_of(number: str) -> str:
    """JSON of a whole number, or of what is JSON already; null for NULL."""
    return f"coalesce(CAST({number} AS text), 'null')"


def time_of(time: str) -> str:
    """JSON of a time as every answer writes it, in UTC: 2026-11-02T03:19:00Z, and with six digits where it has a fraction."""
    parts = {"year": 4, "month": 2, "day": 2, "hour": 2, "minute": 2, "second": len("00.000000")}
    year, month, day, hour, minute, second = (
        f"lpad(CAST(extract({part} FROM timezone('UTC', {time})) AS text), {digits}, '0')" for part, digits in parts.items()
    )
    written = f"{year} || '-' || {month} || '-' || {day} || 'T' || {hour} || ':' || {minute} || ':' || {second}"
    return f"""coalesce('"' || replace({written}, '.000000', '') || 'Z"', 'null')"""
