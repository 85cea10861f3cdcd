"""Generates the page's tables of fields (type, default, meaning) from the JSON Schemas, so that the two cannot differ."""

import json
from collections.abc import Iterator

from pydantic import JsonValue

from schemas.artifacts import SHA256_PATTERN
from schemas.base import NAME_PATTERN
from schemas.recipes.dataset import DATASET_NAME_PATTERN

Schema = dict[str, JsonValue]
_PATTERNS = {
    r"^[A-Za-z0-9_.*?]+$": "name or pattern of layers",
    r"^[A-Za-z0-9_.]+$": "name of a layer",
    r"^[a-z0-9_]+$": "name of small letters, digits and underscores",
    NAME_PATTERN: "name",
    DATASET_NAME_PATTERN: "name without a dot in front",
    SHA256_PATTERN: "SHA-256 in hex",
}
_REFERENCE = "#/$defs/"
_ANY = "any JSON"
_ANCHORS = {"JobRequest": "jobrequested"}
"""Anchors of definitions that are not shown under their own name."""
KINDS_ANCHOR = "kinds-of-steps"
"""The anchor of the chapter that shows which settings belong to which kind of step."""


def field_table(schema: Schema, definitions: Schema) -> str:
    """Return a Markdown table of the properties of `schema`; a name of `definitions` becomes a link to its own section."""
    needed = schema.get("required")
    rows = ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, node in _object(schema.get("properties")).items():
        field = _object(node)
        required = isinstance(needed, list) and name in needed
        default = "*needed*" if required else _default(field, definitions)
        rows.append(f"| `{name}` | {_cell(_type(field))} | {_cell(default)} | {_cell(_meaning(field, definitions))} |")
    return "\n".join(rows) if len(rows) > 2 else "No fields."


def description(schema: Schema) -> str:
    """Return the description of a schema, with one line for each paragraph."""
    return str(schema.get("description", ""))


def references(node: JsonValue) -> Iterator[str]:
    """Yield the names of the definitions that a schema refers to, in its order, with repetitions."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix(_REFERENCE)
            elif key not in {"$defs", "default", "discriminator"}:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def _object(node: JsonValue) -> Schema:
    return node if isinstance(node, dict) else {}


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _meaning(field: Schema, definitions: Schema) -> str:
    own = description(field)
    if own or "$ref" not in field:
        return own or ("Tells kinds apart." if "const" in field else "")
    return description(_definition(field, definitions)).partition("\n\n")[0]


def _definition(field: Schema, definitions: Schema) -> Schema:
    return _object(definitions[str(field["$ref"]).removeprefix(_REFERENCE)])


def _default(field: Schema, definitions: Schema) -> str:
    if "default" not in field:
        return "`{}`"
    value = field["default"]
    if "$ref" in field and isinstance(value, dict):
        return _difference(value, _definition(field, definitions))
    if isinstance(value, list):
        value = [_without_defaults(item, field, definitions) for item in value]
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _difference(value: Schema, definition: Schema) -> str:
    """Return a default object as its differences from the defaults of its own fields."""
    properties = _object(definition.get("properties"))
    other = {name: item for name, item in value.items() if item != _object(properties.get(name)).get("default")}
    return f"`{json.dumps(other, ensure_ascii=False)}`, else its own" if other else "its own"


def _without_defaults(item: JsonValue, field: Schema, definitions: Schema) -> JsonValue:
    items = _object(field.get("items"))
    if not isinstance(item, dict) or "$ref" not in items:
        return item
    properties = _object(_definition(items, definitions).get("properties"))
    return {name: value for name, value in item.items() if value != _object(properties.get(name)).get("default")}


def _type(node: Schema) -> str:
    """Return a type in words."""
    if "$ref" in node:
        name = str(node["$ref"]).removeprefix(_REFERENCE)
        return _ANY if name == "JsonValue" else f"[{name}](#{_ANCHORS.get(name, name.lower())})"
    if "discriminator" in node:
        return f"[settings of the kind](#{KINDS_ANCHOR})"
    if isinstance(arms := node.get("anyOf") or node.get("oneOf"), list):
        return " or ".join(_type(_object(arm)) for arm in arms)
    if isinstance(values := node.get("enum"), list):
        return " | ".join(f"`{value}`" for value in values)
    if "const" in node:
        return f"`{node['const']}`"
    match node.get("type"):
        case "array":
            return f"list of {_type(_object(node.get('items')))}" + (", not empty" if node.get("minItems") == 1 else "")
        case "object":
            values_of = _object(node.get("additionalProperties"))
            return f"object: text to {_type(values_of)}" if values_of else "object"
        case "string" if node.get("format") == "date-time":
            return "time"
        case "string" if "pattern" in node:
            return _PATTERNS[str(node["pattern"])]
        case "string":
            return "text" + _length(node)
        case "integer" | "number" as kind:
            return kind + _range(node)
        case "boolean":
            return "true or false"
        case "null":
            return "null"
        case None:
            return _ANY
        case other:
            raise ValueError(f"no words for the type {other!r}; add them here")


def _length(node: Schema) -> str:
    low, high = node.get("minLength"), node.get("maxLength")
    if high is None:
        return f" (≥ {low})" if low else ""
    return f" ({low} to {_number(high)})" if low else f" (≤ {_number(high)})"


def _range(node: Schema) -> str:
    """Return the bounds of a number: a range if both ends are included, otherwise comparisons."""
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and high is not None:
        return f", {_number(low)} to {_number(high)}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {_number(node[name])}" for name, sign in signs.items() if node.get(name) is not None]
    return f" {', '.join(bounds)}" if bounds else ""


def _number(value: JsonValue) -> str:
    """Return a number, with the digits of long integers in groups."""
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}".replace(",", " ")
    return f"{value:g}" if isinstance(value, float) else str(value)
