"""Generates `docs/contract.md`, whose tables come from the contract itself and so cannot become outdated.

The hand-written part is `contract.template.md`; `{{name}}` in it is replaced by text that this module generates.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import JsonValue

from schemas.attributes import ATTRIBUTE_LIMIT, PREFIX, SUBJECT_LIMIT
from schemas.base import FIRST_YEAR, LAST_YEAR, EventData
from schemas.bounds import SETTINGS_BYTES
from schemas.envelope import REQUEST_PARTS, encode, wire_data
from schemas.generate.examples import EXAMPLES
from schemas.generate.field_tables import Schema, description, field_table, references
from schemas.generate.headers import DEAD_LETTER_HEADERS, HEADERS
from schemas.generate.json_schema import event_schema
from schemas.json_text import BATCH_BYTES, BATCH_RECORDS, DEPTH_LIMIT, MOST_HEADERS, READ_BYTES
from schemas.requests import JobRequest
from schemas.steps import EXECUTOR_OF, INPUTS_OF, OUTPUTS_OF, SERVICES
from schemas.topics import CATALOGUE, EVENT_TYPES, TOPIC_OF, Topic

_TEMPLATE = Path(__file__).with_name("contract.template.md")
_PLACE = re.compile(r"\{\{(\w+)\}\}")
_SETTINGS = (
    "DatasetSettings", "ColumnMapping", "SplitSettings", "TrainingSettings", "LoraSettings", "OptimiserSettings",
    "SamplingSettings", "FeedbackSettings", "JudgeSettings", "Rubric", "Rule", "PreferenceSettings", "PreferenceLoss",
    "EvaluationSettings",
)  # fmt: skip
"""The settings of a request; each part follows the purpose that it belongs to."""
_STEP_SETTINGS = {kind: f"{kind.capitalize()}Settings" for kind in EXECUTOR_OF}
_HOUR_MS = 60 * 60 * 1000


def contract_page() -> str:
    """Return the whole page. Raises KeyError if the template has a name that this module does not generate."""
    parts: Mapping[str, Callable[[], str]] = {
        "attribute_limit": lambda: str(ATTRIBUTE_LIMIT),
        "subject_limit": lambda: str(SUBJECT_LIMIT),
        "depth_limit": lambda: str(DEPTH_LIMIT),
        "request_limit": lambda: _binary(SETTINGS_BYTES),
        "request_parts": lambda: f"{REQUEST_PARTS:,}",
        "record_limit": lambda: _binary(READ_BYTES),
        "batch_limit": lambda: _binary(BATCH_BYTES),
        "header_limit": lambda: f"{MOST_HEADERS:,}",
        "batch_records": lambda: f"{BATCH_RECORDS:,}",
        "first_year": lambda: str(FIRST_YEAR),
        "last_year": lambda: str(LAST_YEAR),
        "services": lambda: ", ".join(SERVICES),
        "topics": _topics,
        "headers": _headers,
        "dead_letter_headers": _dead_letter_headers,
        "binary_example": _binary_example,
        "structured_example": _structured_example,
        "events": _events,
        "settings": _settings,
        "kinds": _kinds,
        "values": _values,
    }
    return _PLACE.sub(lambda place: parts[place[1]](), _TEMPLATE.read_text())


def _binary(size: int) -> str:
    return f"{size // 2**20} MiB" if size >= 2**20 else f"{size // 2**10} KiB"


def _topics() -> str:
    rows = ["| topic | key | events | written by | partitions | kept for |", "| --- | --- | --- | --- | --- | --- |"]
    for topic in CATALOGUE:
        events = ", ".join(f"[{name}](#{_anchor(name)})" for name in map(_name, topic.events)) or topic.description
        writers = ", ".join(topic.writers)
        rows.append(f"| `{topic.name}` | {topic.key} | {events} | {writers} | {topic.partitions} | {_kept(topic)} |")
    return "\n".join(rows)


def _anchor(name: str) -> str:
    """Return the anchor of the heading `name`, which has no dot."""
    return name.lower().replace(".", "")


def _kept(topic: Topic) -> str:
    if topic.cleanup == "compact":
        return "the latest of each key"
    if topic.retention_ms is None:
        return "for ever"
    hours = topic.retention_ms // _HOUR_MS
    return f"{hours // 24} days" if hours > 24 else f"{hours} h"


def _headers() -> str:
    rows = ["| header | required | sent by NeuroWeaver | meaning |", "| --- | --- | --- | --- |"]
    rows += [f"| `{h.name}` | {'yes' if h.needed else ''} | {h.sent} | {h.meaning} |" for h in HEADERS]
    return "\n".join(rows)


def _dead_letter_headers() -> str:
    rows = ["| header | meaning |", "| --- | --- |"]
    return "\n".join([*rows, *(f"| `{name}` | {meaning} |" for name, meaning in DEAD_LETTER_HEADERS)])


def _binary_example() -> str:
    event = EXAMPLES["JobRequested"]
    _, headers = encode(event)
    lines = [f"{name}: {raw.decode()}" for name, raw in headers]
    return "\n".join(["```", f"key: {event.subject}", *lines, "", _pretty(json.loads(wire_data(event.data))), "```"])


def _structured_example() -> str:
    event = EXAMPLES["JobRequested"]
    _, headers = encode(event)
    attributes = {name.removeprefix("ce_"): raw.decode() for name, raw in headers if name.startswith("ce_")}
    body = {**attributes, "datacontenttype": "application/json", "data": json.loads(wire_data(event.data))}
    return "\n".join(
        ["```", f"key: {event.subject}", "content-type: application/cloudevents+json", "", _pretty(body), "```"]
    )


def _events() -> str:
    return "\n\n".join(_event(model) for model in EVENT_TYPES.values())


def _event(model: type[EventData]) -> str:
    schema = event_schema(model)
    table = field_table(schema, _definitions(schema))
    topic = TOPIC_OF[_name(model)].name
    where = f"`{PREFIX}{_name(model)}` on `{topic}` · [JSON Schema](../schemas/generated/events/{_name(model)}.json)"
    return f"### {_name(model)}\n\n{description(schema)}\n\n{where}\n\n{table}"


def _settings() -> str:
    known = _all_definitions()
    return "\n\n".join(_section(name, known) for name in _SETTINGS)


def _kinds() -> str:
    rows = ["| kind | made by | inputs | outputs | settings |", "| --- | --- | --- | --- | --- |"]
    for kind, service in EXECUTOR_OF.items():
        inputs = ", ".join(name if needed else f"{name}?" for name, needed in INPUTS_OF[kind].items())
        settings = _STEP_SETTINGS[kind]
        rows.append(
            f"| `{kind}` | {service} | {inputs} | {', '.join(OUTPUTS_OF[kind])} | [{settings}](#{settings.lower()}) |"
        )
    known = _all_definitions()
    return "\n".join(rows) + "\n\n" + "\n\n".join(_section(name, known) for name in _STEP_SETTINGS.values())


def _values() -> str:
    """Return all definitions that no other chapter shows."""
    known = _all_definitions()
    shown = {*_SETTINGS, *_STEP_SETTINGS.values(), JobRequest.__name__, "JsonValue"}
    return "\n\n".join(_section(name, known) for name in known if name not in shown)


def _section(name: str, known: Schema) -> str:
    schema = known[name]
    assert isinstance(schema, dict)
    return f"### {name}\n\n{description(schema)}\n\n{field_table(schema, known)}"


def _all_definitions() -> Schema:
    """Return the definitions of all events by name, in the order in which the events refer to them."""
    found: Schema = {}
    for model in EVENT_TYPES.values():
        schema = event_schema(model)
        definitions = _definitions(schema)
        waiting = list(references(schema))
        while waiting:
            name = waiting.pop(0)
            if name not in found:
                found[name] = definitions[name]
                waiting += references(definitions[name])
    return found


def _definitions(schema: Schema) -> Schema:
    definitions = schema.get("$defs", {})
    return definitions if isinstance(definitions, dict) else {}


def _name(model: type[EventData]) -> str:
    return model.type_name()


def _pretty(value: JsonValue) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
