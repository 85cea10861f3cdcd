"""Removes the nulls that a table puts where its rows' objects have unlike names: Arrow gives all of them the names of all. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.lines import Message

_LITERAL = ("default", "const", "enum", "examples", "example")
"""Names in a JSON schema whose values are data, in which null means null."""


def without_nulls(value: object) -> object:
    """Return a value of a table without the names whose value is null, at any depth."""
    match value:
        case Mapping():
            return {name: without_nulls(part) for name, part in value.items() if part is not None}
        case list() | tuple():
            return [without_nulls(part) for part in value]
    return value


def row_without_nulls(values: Mapping[str, object]) -> dict[str, object]:
    """Return a row of a table: a column that is null is kept, a name within it that is null is not."""
    return {name: without_nulls(value) for name, value in values.items()}


def schema_without_nulls(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON schema without its null keywords and properties, which no schema has."""
    return {
        name: value if name in _LITERAL else _part_without_nulls(value)
        for name, value in schema.items()
        if value is not None or name in _LITERAL
    }


def _part_without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return schema_without_nulls(value)
    return [_part_without_nulls(part) for part in value] if isinstance(value, list | tuple) else value


def calls_without_nulls(turns: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """Return the turns without null arguments that the called tool does not have."""
    known = {tool["function"]["name"]: _arguments_of(tool["function"]) for tool in tools}

    def cleaned(call: dict[str, Any]) -> dict[str, Any]:
        function = call["function"]
        names = known.get(function["name"])
        if names is None:
            return call
        arguments = {name: value for name, value in function["arguments"].items() if value is not None or name in names}
        return {**call, "function": {**function, "arguments": arguments}}

    return tuple(
        turn.model_copy(update={"tool_calls": tuple(map(cleaned, turn.tool_calls))}) if turn.tool_calls else turn
        for turn in turns
    )


def _arguments_of(function: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the names of a function's arguments; None if its schema does not tell them."""
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    return frozenset(properties) if isinstance(properties, Mapping) else None
