"""Encodes and decodes CloudEvents 1.0 over Kafka: writes binary mode, reads binary and structured mode, names every fault.

https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/kafka-protocol-binding.md
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple

from pydantic import ValidationError

from schemas.attributes import (
    ATTRIBUTE_LIMIT,
    CONTENT,
    PREFIX,
    REQUIRED,
    Attributes,
    NoEvent,
    Spellings,
    attributes_of,
    data_of,
    instead,
    plain_attributes,
    time_of,
)
from schemas.base import EventData
from schemas.bounds import SETTINGS_BYTES
from schemas.evolution.upcasting import MalformedData, newest, upcast
from schemas.ids import root_traceparent, trace_id
from schemas.json_text import DEPTH_LIMIT, UNSTORABLE, NoJson, Parsed, parse, parse_plain, storable
from schemas.reasons import Reason, reasons_of
from schemas.requests import JobRequested
from schemas.steps import SERVICES
from schemas.topics import CATALOGUE, EVENT_TYPES, REQUESTS, TOPIC_OF

SEQUENCE_DIGITS = 16
REQUEST_BYTES = SETTINGS_BYTES
"""The most bytes of a request: it must fit into one record, and with its plan into another."""
REQUEST_PARTS = 10_000
"""The most objects and lists of a request: each takes fifty times as many bytes in memory as in text."""
_SCHEMA_URN = "urn:neuroweaver:"
_UNKNOWN_SOURCE = "unknown"
CONTENT_TYPE = (CONTENT, b"application/json")
_OUTSIDE = {
    topic.name: Spellings(topic.name, (event.type_name() for event in topic.events))
    for topic in CATALOGUE
    if not set(topic.writers) <= set(SERVICES)
}
"""Topics that outsiders write to, with their event types."""
_OF_OUTSIDERS = frozenset(event.type_name() for event in REQUESTS.events)


class Unreadable(ValueError):
    """The record is not a valid event: it becomes a dead letter and is never retried."""


class UnknownVersion(ValueError):
    """The event is a newer version of a handled type: the service stops here, so that it does not lose a command."""


class Event(NamedTuple):
    """One decoded event. `sequence` numbers own events per source and subject, from 1; None for unnumbered facts."""

    id: str
    source: str
    subject: str
    time: datetime
    data: EventData
    sequence: int | None
    correlation_id: str
    causation_id: str | None
    traceparent: str

    @property
    def type(self) -> str:
        """Name of the type without prefix."""
        return self.data.type_name()


@dataclass(frozen=True, slots=True)
class Unhandled:
    """A well-formed event of a type that the reader does not handle; it is counted and skipped."""

    id: str
    source: str
    type: str


def schema_urn(model: type[EventData]) -> str:
    """Return the value of `ce_dataschema`, which identifies the JSON Schema of the event's data."""
    return f"{_SCHEMA_URN}{model.type_name()}:{model.schema_version}"


def wire_data(data: EventData) -> str:
    """Return the JSON text of an event's data on the wire."""
    if isinstance(data, JobRequested):
        return json.dumps(data.request, ensure_ascii=False, separators=(",", ":"))
    return data.model_dump_json()


def wire_attributes(event: Event) -> dict[str, str]:
    """Return the headers of `event` in binary mode, except the content type; those without a value are left out."""
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": event.id,
        "ce_source": event.source,
        "ce_type": PREFIX + event.type,
        "ce_time": event.time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "ce_subject": event.subject,
        "ce_dataschema": f"{_SCHEMA_URN}{event.type}:{event.data.schema_version}",
        "ce_correlationid": event.correlation_id,
        "ce_causationid": event.causation_id,
        "ce_traceparent": event.traceparent,
        "ce_sequence": None if event.sequence is None else f"{event.sequence:0{SEQUENCE_DIGITS}d}",
    }
    return {name: value for name, value in attributes.items() if value}


def encode(event: Event) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Encode `event` in binary mode as value and headers."""
    headers = [(name, value.encode()) for name, value in wire_attributes(event).items()]
    return wire_data(event.data).encode(), [*headers, CONTENT_TYPE]


def decode(
    value: bytes | None,
    headers: Sequence[tuple[str, bytes | None]],
    handled: Collection[str],
    appended: datetime,
    topic: str | None = None,
) -> Event | Unhandled:
    """Decode the event in a record; `appended` is the record's time in the log, which replaces an absent `ce_time`.

    On a `topic` that outsiders write to, a type is recognised however it is spelt, and one that does not belong there is
    Unreadable. A JobRequested whose `job_id` can be read is never Unreadable: its other faults are part of the event, so
    that its sender gets an answer. Raises Unreadable for a record that is not a CloudEvent, not JSON or not of its type's
    shape, and UnknownVersion for a breaking version (`.v2`) of a handled type that this code does not know.
    """
    return _plain(value, headers, handled, appended, topic) or _with_care(value, headers, handled, appended, topic)


def _plain(
    value: bytes | None,
    headers: Sequence[tuple[str, bytes | None]],
    handled: Collection[str],
    appended: datetime,
    topic: str | None,
) -> Event | Unhandled | None:
    """Decode a plain record quickly, with the same result as `_with_care`; None if it may be unusual.

    Raises UnknownVersion.
    """
    given = plain_attributes(headers)
    if given is None or value is None:
        return None
    written = given["type"].removeprefix(PREFIX)
    name = newest(written)
    if topic in _OUTSIDE and name not in _OF_OUTSIDERS:
        return None
    if name not in EVENT_TYPES or name not in handled:
        return _unhandled(given, name, handled)
    if name != written:
        return None
    requested = name == JobRequested.type_name()
    parsed = parse_plain(value, doubled=name in _OF_OUTSIDERS)
    time = time_of(given["time"]) if "time" in given else appended
    sequence = given.get("sequence", "") if TOPIC_OF[name] is not REQUESTS else ""
    if parsed is None or not isinstance(parsed.value, dict) or time is None or (sequence and not sequence.isdigit()):
        return None
    data: EventData
    if requested:
        job_id = parsed.value.get("job_id")
        if not isinstance(job_id, str) or not 0 < len(job_id) <= ATTRIBUTE_LIMIT or len(value) > REQUEST_BYTES:
            return None
        data = JobRequested(job_id=job_id, request=parsed.value)
    else:
        try:
            data = EVENT_TYPES[name].model_validate(parsed.value, extra="ignore")
        except ValidationError:
            return None
    return Event(
        given["id"],
        given["source"],
        given.get("subject", ""),
        time,
        data,
        int(sequence) if sequence else None,
        str(getattr(data, "job_id", "")) or given.get("correlationid", ""),
        given.get("causationid"),
        _traceparent(given),
    )


def _with_care(
    value: bytes | None,
    headers: Sequence[tuple[str, bytes | None]],
    handled: Collection[str],
    appended: datetime,
    topic: str | None,
) -> Event | Unhandled:
    try:
        found = attributes_of(value, headers)
        written = _written(found, topic)
        name = newest(written) if written else ""
        if written is None or name not in EVENT_TYPES or name not in handled:
            _strict(found)
            return _unhandled(found.given, name, handled)
        faults = _lenient(found, name, value or b"") if name in _OF_OUTSIDERS else _strict(found)
        data = _data(name, written, found, value or b"", faults)
    except (NoEvent, NoJson, MalformedData) as error:
        raise Unreadable(str(error)) from error
    attributes = found.given
    return Event(
        id=attributes["id"],
        source=attributes["source"],
        subject=attributes.get("subject") or "",
        time=_time(name, attributes.get("time"), appended),
        data=data,
        sequence=None if TOPIC_OF[name] is REQUESTS else _sequence(attributes.get("sequence")),
        correlation_id=str(getattr(data, "job_id", "")) or attributes.get("correlationid") or "",
        causation_id=attributes.get("causationid"),
        traceparent=_traceparent(attributes),
    )


def _written(found: Attributes, topic: str | None) -> str | None:
    """Return the name of the type as written, without prefix; None for a foreign type. Raises Unreadable."""
    text = found.given.get("type")
    if not text:
        raise Unreadable(_missing("type"))
    name = text.removeprefix(PREFIX) if text.startswith(PREFIX) else ""
    if topic in _OUTSIDE:
        meant = name if newest(name) in _OF_OUTSIDERS else _OUTSIDE[topic].meant(text)
        if meant is None:
            raise Unreadable(_OUTSIDE[topic].refusal(text))
        found.faults.pop("type", None)
        return meant
    if "type" in found.faults:
        raise Unreadable(found.faults["type"])
    return name or None


def _unhandled(given: Mapping[str, str], name: str, handled: Collection[str]) -> Unhandled:
    written = given["type"]
    if written.startswith(PREFIX) and _is_newer(name, handled):
        raise UnknownVersion(f"type {written} is newer than this service, which waits here; upgrade the service")
    return Unhandled(given["id"], given["source"], written)


def _is_newer(name: str, handled: Collection[str]) -> bool:
    """Return whether `name` is an unknown version of a handled type."""
    base, _, version = name.partition(".")
    return bool(version) and any(known.partition(".")[0] == base for known in handled)


def _missing(name: str) -> str:
    return f"CloudEvents attribute `{name}` is missing; send binary mode (ce_{name}) or structured mode"


def _of_another_version(specversion: str) -> str:
    return f"specversion {specversion!r} is not supported; send 1.0"


def _strict(found: Attributes) -> list[Reason]:
    """Refuse every fault. Raises Unreadable."""
    for name in REQUIRED:
        if not found.given.get(name):
            raise Unreadable(found.faults.get(name) or _missing(name))
    for fault in found.faults.values():
        raise Unreadable(fault)
    if found.given["specversion"] != "1.0":
        raise Unreadable(_of_another_version(found.given["specversion"]))
    return []


def _lenient(found: Attributes, name: str, value: bytes) -> list[Reason]:
    """Make the attributes of an outsider's event usable: optional ones that cannot be read are left out.

    A missing required attribute is a fault of a JobRequested. Raises Unreadable if another event lacks it.
    """
    given, faults = found.given, list[Reason]()
    for attribute in found.faults:
        if attribute not in REQUIRED:
            given.pop(attribute, None)
        elif attribute in given:
            given[attribute] = instead(given[attribute])
    for attribute, substitute in (("id", f"~{sha256(value).hexdigest()}"), ("source", _UNKNOWN_SOURCE)):
        if not given.get(attribute):
            faults.append(_fault_of(attribute, None, f"CloudEvents attribute `{attribute}` is missing"))
            given[attribute] = substitute
    version = given.get("specversion")
    if version != "1.0":
        message = (
            f"specversion {version!r} is not supported" if version else "CloudEvents attribute `specversion` is missing"
        )
        faults.append(_fault_of("specversion", version, message))
    if faults and name != JobRequested.type_name():
        raise Unreadable("; ".join(map(str, faults)))
    return faults


def _fault_of(attribute: str, value: str | None, message: str) -> Reason:
    remedy = "send 1.0" if attribute == "specversion" else f"send binary mode (ce_{attribute}) or structured mode"
    return Reason(field=f"ce_{attribute}", value=value, message=message, remedy=remedy)


def _data(name: str, written: str, found: Attributes, value: bytes, faults: list[Reason]) -> EventData:
    requested = name == JobRequested.type_name()
    parsed = parse(value, doubled=name in _OF_OUTSIDERS) if found.body is None else data_of(found)
    body = parsed.value
    if not isinstance(body, dict):
        raise Unreadable(f"the data of {name} must be a JSON object")
    if "job_id" in parsed.contradicting(body):
        raise Unreadable("field job_id: two ids are given, so the job is unknown; give one id")
    if requested:
        faults = [*faults, *map(_fault_of_name, parsed.doubled)]
        return _job_requested(_upcast_request(written, body, faults), parsed, len(value), faults)
    if parsed.deep:
        raise Unreadable(f"the value is nested deeper than {DEPTH_LIMIT} levels; send flatter JSON")
    body = upcast(written, body)
    unclean: list[Reason] = []
    if not parsed.plain:
        storable(body, "", unclean)
    if unclean:
        raise Unreadable("; ".join(str(fault) for fault in unclean))
    try:
        # within settings, too, unknown fields are ignored: a newer release may have written them
        return EVENT_TYPES[name].model_validate(body, extra="ignore")
    except ValidationError as error:
        raise Unreadable("; ".join(str(reason) for reason in reasons_of(error))) from None


def _fault_of_name(doubled: str) -> Reason:
    field = ascii(doubled)[1:-1][:ATTRIBUTE_LIMIT]
    return Reason(field=field, value=None, message="the field is given twice", remedy="give it once")


def _upcast_request(written: str, body: dict[str, Any], faults: list[Reason]) -> dict[str, Any]:
    """Upcast a request of an older type; one that its upcaster cannot read is answered like any other faulty request."""
    try:
        return upcast(written, body)
    except MalformedData as error:
        remedy = f"send {PREFIX}{newest(written)}"
        faults.append(Reason(field="(request)", value=None, message=str(error)[:ATTRIBUTE_LIMIT], remedy=remedy))
        return body


def _job_requested(body: dict[str, Any], parsed: Parsed, size: int, faults: list[Reason]) -> JobRequested:
    """Build a JobRequested; one whose id can be read always gets an answer, so its other faults are part of the event."""
    job_id = body.get("job_id")
    kept = (
        isinstance(job_id, str) and 0 < len(job_id) <= ATTRIBUTE_LIMIT and (parsed.plain or not UNSTORABLE.search(job_id))
    )
    if not kept:
        raise Unreadable(f"field job_id: text of 1 to {ATTRIBUTE_LIMIT} characters is needed for an answer; add it")
    if parsed.deep:
        message = f"the request is nested deeper than {DEPTH_LIMIT} levels"
        faults.append(Reason(field="(request)", value=None, message=message, remedy="send flatter JSON"))
    if size > REQUEST_BYTES or parsed.parts > REQUEST_PARTS:
        message = f"the request has {size} bytes with {parsed.parts} objects and lists; at most {REQUEST_BYTES} with {REQUEST_PARTS} are read"
        too_much = Reason(
            field="(request)", value=None, message=message, remedy="send references to data instead of the data"
        )
        return JobRequested(job_id=job_id, request={"job_id": job_id}, faults=(*faults, too_much))
    clean = body if parsed.plain else storable(body, "", faults)
    return JobRequested(job_id=job_id, request=clean, faults=tuple(faults))


def _time(name: str, text: str | None, appended: datetime) -> datetime:
    """Return the event's time; an outsider's event without a storable time gets the log's time, and any other event must
    have one."""
    if not text:
        return appended
    time = time_of(text)
    if time is None and name not in _OF_OUTSIDERS:
        raise Unreadable(
            f"CloudEvents attribute `time` {text!r} is not an RFC 3339 time with its zone in the years 1970 to 9998"
        )
    return time or appended


def _sequence(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise Unreadable(f"CloudEvents extension `sequence` {text!r} is not a number")
    return int(text)


def _traceparent(attributes: Mapping[str, str]) -> str:
    given = attributes.get("traceparent")
    return given if given and trace_id(given) else root_traceparent(attributes["source"], attributes["id"])
