"""Generates one AsyncAPI 3 document of the topics and their messages, for generators, catalogues and brokers' consoles.

https://www.asyncapi.com/docs/reference/specification/v3.0.0 with Kafka bindings 0.5.0. Payloads are not repeated here:
they point to the JSON Schema of the event in the folder `events` beside the document.
"""

import json

from pydantic import JsonValue

from schemas.attributes import PREFIX
from schemas.base import EventData
from schemas.envelope import encode, schema_urn, wire_data
from schemas.generate.examples import EXAMPLES
from schemas.generate.headers import DEAD_LETTER_HEADERS, HEADERS
from schemas.topics import CATALOGUE, EVENT_TYPES, REQUESTS, TOPIC_OF, Topic

_SCHEMA_FORMAT = "application/schema+json;version=draft-2020-12"
_BINDING = "0.5.0"
_HEADERS = "CloudEventsHeaders"
_DEAD_LETTER = "DeadLetter"
Object = dict[str, JsonValue]


def async_api(version: str) -> Object:
    """Return the document as JSON values; `version` is that of the distribution."""
    messages: Object = {name: _message(model) for name, model in EVENT_TYPES.items()}
    return {
        "asyncapi": "3.0.0",
        "id": "urn:neuroweaver",
        "info": {
            "title": "NeuroWeaver",
            "version": version,
            "description": "NeuroWeaver receives requests for language models and sends facts about jobs and models. "
            "Operations are named from NeuroWeaver's side: it receives requests and sends everything else.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {_channel_name(topic): _channel(topic) for topic in CATALOGUE},
        "operations": {name: operation for topic in CATALOGUE for name, operation in [_operation(topic)]},
        "components": {
            "schemas": {_HEADERS: _headers()},
            "messages": {**messages, _DEAD_LETTER: _dead_letter()},
        },
    }


def _channel_name(topic: Topic) -> str:
    return topic.name.removeprefix(PREFIX).replace(".", "-")


def _messages(topic: Topic) -> list[str]:
    return [model.type_name() for model in topic.events] or [_DEAD_LETTER]


def _channel(topic: Topic) -> Object:
    return {
        "address": topic.name,
        "description": topic.description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _messages(topic)},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": {
                    "cleanup.policy": [topic.cleanup],
                    "retention.ms": -1 if topic.retention_ms is None else topic.retention_ms,
                },
                "bindingVersion": _BINDING,
            }
        },
        "x-key": topic.key,
        "x-writers": list(topic.writers),
    }


def _operation(topic: Topic) -> tuple[str, Object]:
    action = "receive" if topic is REQUESTS else "send"
    channel = _channel_name(topic)
    title = "".join(part.capitalize() for part in channel.split("-"))
    operation: Object = {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": topic.description,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in _messages(topic)],
    }
    return f"{action}{title}", operation


def _message(model: type[EventData]) -> Object:
    name = model.type_name()
    any_version = f"^{schema_urn(model).rpartition(':')[0]}:[0-9]+$"
    fixed: Object = {"ce_type": {"const": PREFIX + name}, "ce_dataschema": {"pattern": any_version}}
    _, headers = encode(EXAMPLES[name])
    return {
        "name": PREFIX + name,
        "title": name,
        "summary": (model.__doc__ or "").partition("\n")[0],
        "contentType": "application/json",
        "headers": {"allOf": [{"$ref": f"#/components/schemas/{_HEADERS}"}, {"properties": fixed}]},
        "payload": {"schemaFormat": _SCHEMA_FORMAT, "schema": {"$ref": f"./events/{name}.json"}},
        "correlationId": {"location": "$message.header#/ce_correlationid", "description": "Id of the job."},
        "bindings": {"kafka": {"key": _key(TOPIC_OF[name].key), "bindingVersion": _BINDING}},
        "examples": [
            {
                "headers": {header: raw.decode() for header, raw in headers},
                "payload": json.loads(wire_data(EXAMPLES[name].data)),
            }
        ],
    }


def _headers() -> Object:
    properties: Object = {}
    for header in HEADERS:
        schema: Object = {"type": "string", "description": header.meaning}
        properties[header.name] = {**schema, "pattern": header.pattern} if header.pattern else schema
    return {"type": "object", "properties": properties, "required": [header.name for header in HEADERS if header.needed]}


def _dead_letter() -> Object:
    headers: Object = {name: {"type": "string", "description": meaning} for name, meaning in DEAD_LETTER_HEADERS}
    return {
        "name": _DEAD_LETTER,
        "title": _DEAD_LETTER,
        "summary": "A record that could not be processed, byte for byte, with the reason in added headers.",
        "contentType": "application/octet-stream",
        "headers": {"type": "object", "properties": headers, "required": list(headers)},
        "payload": {"description": "The record's value, unchanged."},
        "bindings": {"kafka": {"key": _key("original key"), "bindingVersion": _BINDING}},
    }


def _key(description: str) -> Object:
    return {"type": "string", "description": description}
