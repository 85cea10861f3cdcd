"""Generates the JSON Schema of an event's data on the wire, so that producers and consumers of any language can validate.

The services' own events may gain fields, so their schemas allow unknown ones; in a JobRequested a misspelt field is a
fault.
"""

from typing import Any

from pydantic import BaseModel, JsonValue
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from schemas.base import EventData
from schemas.envelope import schema_urn
from schemas.requests import JobRequest, JobRequested

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _WithoutTitles(GenerateJsonSchema):
    """A schema without pydantic's titles, which would repeat the field names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:
        """Keep the order of the models."""
        return value


def wire_model(model: type[EventData]) -> type[BaseModel]:
    """Return the model whose fields are the data of `model` on the wire."""
    return JobRequest if model is JobRequested else model


def event_schema(model: type[EventData]) -> dict[str, JsonValue]:
    """Return the JSON Schema (2020-12) of the data of an event; its `$id` is the value of `ce_dataschema`."""
    schema: dict[str, JsonValue] = wire_model(model).model_json_schema(schema_generator=_WithoutTitles)
    if model is not JobRequested:
        _allow_unknown_fields(schema)
    _drop_titles(schema)
    definitions = schema.pop("$defs", None)
    head: dict[str, JsonValue] = {"$schema": DIALECT, "$id": schema_urn(model), "title": model.type_name()}
    return {**head, **schema, **({"$defs": definitions} if definitions else {})}


def _allow_unknown_fields(node: JsonValue) -> None:
    if isinstance(node, dict):
        if node.get("additionalProperties") is False:
            del node["additionalProperties"]
        for value in node.values():
            _allow_unknown_fields(value)
    elif isinstance(node, list):
        for value in node:
            _allow_unknown_fields(value)


def _drop_titles(schema: dict[str, JsonValue]) -> None:
    """Remove titles, because `$defs` and the root's `title` name the models already."""
    schema.pop("title", None)
    definitions = schema.get("$defs")
    for definition in definitions.values() if isinstance(definitions, dict) else ():
        if isinstance(definition, dict):
            definition.pop("title", None)
