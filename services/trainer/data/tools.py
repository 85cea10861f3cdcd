"""Reads the tools of a row and the calls of a turn, as the usual formats write them, in OpenAI's form. Pure."""

import math
from collections.abc import Mapping
from typing import Any

from services.trainer.data.columns import RowFault, kind_of, parsed
from services.trainer.data.padding import schema_without_nulls

_ARGUMENTS = ("arguments", "parameters", "args", "input")
"""Names of the arguments of a tool call: of OpenAI, Llama 3, LangChain and Anthropic."""
_BESIDE = frozenset({"name", "id", "type", "index", "description", "function"})


def calls_of(value: object, field: str, where: str) -> tuple[dict[str, Any], ...]:
    """Return tool calls in OpenAI's form, with their arguments as objects. Raises RowFault."""
    value = parsed(value, field, where)
    calls = value if isinstance(value, list | tuple) else [value]
    return tuple(_call(call, field, where) for call in calls)


def _call(call: object, field: str, where: str) -> dict[str, Any]:
    if not isinstance(call, Mapping):
        raise RowFault(
            field, f"{where} has a tool call that is {kind_of(call)}", "write tool_calls as OpenAI does, or null"
        )
    function = call.get("function", call)
    if not isinstance(function, Mapping) or not isinstance(name := function.get("name"), str):
        raise RowFault(field, f"{where} has a tool call without a name", "write tool_calls as OpenAI does")
    given = [function[key] for key in _ARGUMENTS if key in function]
    if len(given) > 1 or (not given and set(function) - _BESIDE):
        what = f"{where} has a tool call whose arguments are not under one of the names {', '.join(_ARGUMENTS)}"
        raise RowFault(field, what, "write tool_calls as OpenAI does")
    arguments = parsed((given[0] if given else {}) or {}, field, f"the arguments of a tool call in {where}")
    if not isinstance(arguments, Mapping):
        what = f"the arguments of a tool call in {where} are {kind_of(arguments)}"
        raise RowFault(field, what, "write them as an object")
    refuse_unlimited(arguments, field, where)
    known = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {**known, "type": "function", "function": {"name": name, "arguments": dict(arguments)}}


def tools_of(value: object, field: str, column: str) -> tuple[dict[str, Any], ...]:
    """Return the tools of a row in OpenAI's form. Raises RowFault."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    value = parsed(value, field, f"column {column!r}")
    tools = value if isinstance(value, list | tuple) else [value]
    return tuple(_tool(tool, field, column) for tool in tools)


def _tool(tool: object, field: str, column: str) -> dict[str, Any]:
    if isinstance(tool, str):
        tool = parsed(tool, field, f"column {column!r}")
    if not isinstance(tool, Mapping):
        raise RowFault(
            field, f"column {column!r} has a tool that is {kind_of(tool)}", "write tools as OpenAI does, or null"
        )
    function = tool.get("function", tool)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RowFault(field, f"column {column!r} has a tool without a name", "write tools as OpenAI does")
    refuse_unlimited(function, field, f"a tool in {column!r}")
    return {"type": "function", "function": schema_without_nulls(function)}


def refuse_unlimited(value: object, field: str, where: str) -> None:
    """Raise RowFault if a number in the value is NaN or an infinity, which JSON cannot store."""
    match value:
        case float() if not math.isfinite(value):
            raise RowFault(field, f"{where} contains NaN or an infinity", "write a number, or null")
        case Mapping():
            for part in value.values():
                refuse_unlimited(part, field, where)
        case list() | tuple():
            for part in value:
                refuse_unlimited(part, field, where)
