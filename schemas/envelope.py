"""Why: CloudEvents 1.0 over Kafka: binary mode out, binary and structured mode in, every fault named.

https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/kafka-protocol-binding.md
"""

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from schemas.base import EventData
from schemas.evolution.upcasting import Malformed, newest, upcast
from schemas.ids import root_traceparent, trace_id
from schemas.reasons import Reason, reasons_of
from schemas.requests import JobRequested
from schemas.topics import EVENT_TYPES, REQUESTS, TOPIC_OF

PREFIX = "neuroweaver."
SEQUENCE_DIGITS = 16
_SCHEMA_URN = "urn:neuroweaver:"
_STRUCTURED = b"application/cloudevents+json"
_REQUIRED = ("id", "source", "type", "specversion")
_READ = (*_REQUIRED, "time", "subject", "correlationid", "causationid", "traceparent", "sequence")
"""Attributes that we read; what others hold is none of our business."""
ATTRIBUTE_LIMIT = 256
"""Characters of a CloudEvents attribute or job id at most: they become keys of rows."""
SUBJECT_LIMIT = 512
"""Characters of a subject at most: `job/step/attempt` has two names in it."""
DEPTH_LIMIT = 64
"""Levels of objects and lists within data at most: what is deeper could be read here and break a later reader."""
_LONGEST_INTEGER = 300
"""Digits of an integer at most; Python and JSON parsers of others refuse numbers far longer than a double."""
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_CONTENT = "content-type"
UNREAD_HEADER = "neuroweaver-unread"
"""Why a record could not even be read from the log, on the record that a reader puts in its place."""
_HEADERS = {_CONTENT: _CONTENT, UNREAD_HEADER: UNREAD_HEADER, **{f"ce_{name}": name for name in _READ}}
CONTENT_TYPE = (_CONTENT, b"application/json")


class Unreadable(ValueError):
    """A record that is no event of ours: its handling is a dead letter, never a retry."""


class UnknownVersion(ValueError):
    """A newer version of a type that we handle: the service stops here rather than lose a command."""


@dataclass(frozen=True, slots=True)
class Event:
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
    """A well-formed event of a type that the reader does not handle; counted and skipped."""

    id: str
    source: str
    type: str


def schema_urn(model: type[EventData]) -> str:
    """What `ce_dataschema` carries: names the JSON Schema of the event's data."""
    return f"{_SCHEMA_URN}{model.type_name()}:{model.schema_version}"


def wire_data(data: EventData) -> str:
    """The JSON text of an event's data as it travels."""
    if isinstance(data, JobRequested):
        return json.dumps(data.request, ensure_ascii=False, separators=(",", ":"))
    return data.model_dump_json()


def wire_attributes(event: Event) -> dict[str, str]:
    """The headers of `event` in binary mode, but for the content type; those without a value are left out."""
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
    """Value and headers of `event` in binary mode."""
    headers = [(name, value.encode()) for name, value in wire_attributes(event).items()]
    return wire_data(event.data).encode(), [*headers, CONTENT_TYPE]


def decode(
    value: bytes | None, headers: Iterable[tuple[str, bytes | None]], handled: Collection[str], appended: datetime
) -> Event | Unhandled:
    """The event in a record; `appended` is the record's time in the log, which stands in for an absent `ce_time`.

    Raises Unreadable for a record that is no CloudEvent, no JSON or not of its type's shape, and UnknownVersion for a
    breaking version (`.v2`) of a handled type that this code does not know.
    """
    attributes, body, plain = _attributes(value, headers)
    for name in _REQUIRED:
        if not attributes.get(name):
            raise Unreadable(f"CloudEvents attribute `{name}` is missing; send binary mode (ce_{name}) or structured mode")
    for name, text in attributes.items():
        if len(text) > ATTRIBUTE_LIMIT and (name != "subject" or len(text) > SUBJECT_LIMIT):
            limit = SUBJECT_LIMIT if name == "subject" else ATTRIBUTE_LIMIT
            raise Unreadable(f"CloudEvents attribute `{name}` is longer than {limit} characters; shorten it")
        if (not text.isascii() and _UNSTORABLE.search(text)) or "\x00" in text:
            raise Unreadable(f"CloudEvents attribute `{name}` holds a NUL or a lone surrogate; send valid Unicode text")
    if attributes["specversion"] != "1.0":
        raise Unreadable(f"specversion {attributes['specversion']!r} is not supported; send 1.0")
    written = attributes["type"].removeprefix(PREFIX)
    name = newest(written)
    if not attributes["type"].startswith(PREFIX) or name not in EVENT_TYPES or name not in handled:
        if attributes["type"].startswith(PREFIX) and _is_newer(name, handled):
            raise UnknownVersion(
                f"type {attributes['type']} is newer than this service; upgrade the service, it waits here"
            )
        return Unhandled(attributes["id"], attributes["source"], attributes["type"])
    if name != written and isinstance(body, dict):
        try:
            body = upcast(written, body)
        except Malformed as error:
            raise Unreadable(str(error)) from error
    data = _data(EVENT_TYPES[name], body, plain=plain)
    return Event(
        id=attributes["id"],
        source=attributes["source"],
        subject=attributes.get("subject") or "",
        time=_time(attributes["time"]) if attributes.get("time") else appended,
        data=data,
        sequence=None if TOPIC_OF[name] is REQUESTS else _sequence(attributes.get("sequence")),
        correlation_id=str(getattr(data, "job_id", "")) or attributes.get("correlationid") or "",
        causation_id=attributes.get("causationid"),
        traceparent=_traceparent(attributes),
    )


def _is_newer(name: str, handled: Collection[str]) -> bool:
    """Whether it is a version, unknown here, of a type that is handled."""
    base, _, version = name.partition(".")
    return bool(version) and any(known.partition(".")[0] == base for known in handled)


def _attributes(value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> tuple[dict[str, str], object, bool]:
    """Attributes, data, and whether nothing in the data can need cleaning."""
    raw: dict[str, bytes] = {}
    for header, held in headers:
        name = _HEADERS.get(header) or _HEADERS.get(header.lower())
        if name is not None:
            raw[name] = held or b""
    if UNREAD_HEADER in raw:
        raise Unreadable(f"the record cannot be read: {raw[UNREAD_HEADER].decode(errors='backslashreplace')[:1000]}")
    if value is None:
        raise Unreadable("the record has no value; send the event's data as JSON")
    body, plain = _json(value)
    if raw.pop(_CONTENT, b"").lower().startswith(_STRUCTURED):
        if not isinstance(body, dict):
            raise Unreadable("a structured event must be a JSON object")
        return {name: _plain(name, body[name]) for name in _READ if body.get(name) is not None}, body.get("data"), plain
    try:
        return {name: held.decode() for name, held in raw.items() if held}, body, plain
    except UnicodeDecodeError:
        name = next(name for name, held in raw.items() if not _is_text(held))
        raise Unreadable(f"header ce_{name} is not UTF-8; send it as UTF-8 text") from None


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _plain(name: str, value: object) -> str:
    """An attribute of structured mode; numbers and booleans count as what they look like."""
    if isinstance(value, dict | list):
        raise Unreadable(f"CloudEvents attribute `{name}` is a structure; send text")
    return value if isinstance(value, str) else json.dumps(value)


def _json(value: bytes) -> tuple[object, bool]:
    """What JSON text says, and whether nothing in it can need cleaning, told without walking through it."""
    try:
        if value.count(b"{") + value.count(b"[") <= DEPTH_LIMIT and not any(sign in value for sign in _SUSPECT):
            try:
                return _PLAIN.decode(value.decode()), True
            except _Boundless:
                pass
        return _ANY.decode(value.decode(json.detect_encoding(value), "surrogatepass")), False
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"the value is no JSON ({error}); send UTF-8 JSON") from None


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else float(digits)


class _Boundless(Exception):
    """A number that no double holds."""


def _bounded_integer(digits: str) -> int:
    if len(digits) > _LONGEST_INTEGER:
        raise _Boundless
    return int(digits)


def _bounded_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _Boundless
    return number


_SUSPECT = (b"\\u", b"\x00", b"\xed", b"\xef\xbb\xbf")
"""Without these, JSON text holds no NUL and no lone surrogate, and is UTF-8 without a mark of its order."""
_PLAIN = json.JSONDecoder(parse_constant=_no_constant, parse_int=_bounded_integer, parse_float=_bounded_float)
_ANY = json.JSONDecoder(parse_constant=_no_constant, parse_int=_integer)


def _data(model: type[EventData], body: object, *, plain: bool) -> EventData:
    if not isinstance(body, dict):
        raise Unreadable(f"the data of {model.type_name()} must be a JSON object")
    faults: list[Reason] = []
    clean = body if plain else _storable(body, "", faults)
    if model is JobRequested:
        return _job_requested(body, clean, faults)
    if faults:
        raise Unreadable("; ".join(str(fault) for fault in faults))
    try:
        return model.model_validate(body, extra="ignore")  # within settings, too: a newer release may have written them
    except ValidationError as error:
        raise Unreadable("; ".join(str(reason) for reason in reasons_of(error))) from None


def _job_requested(body: dict[str, Any], clean: Any, faults: list[Reason]) -> JobRequested:
    """A JobRequested whose id can be read always gets an answer, so what is wrong beside the id travels as a fault."""
    job_id = body.get("job_id")
    if not isinstance(job_id, str) or not 0 < len(job_id) <= ATTRIBUTE_LIMIT or clean["job_id"] != job_id:
        raise Unreadable(f"field job_id: text of 1 to {ATTRIBUTE_LIMIT} characters is needed to answer at all; add it")
    return JobRequested.model_construct(job_id=job_id, request=clean, faults=tuple(faults))


def _storable(value: Any, path: str, faults: list[Reason], depth: int = 0) -> Any:
    """`value` without what cannot be kept as JSON: NUL, lone surrogates, numbers beyond a double, bottomless nesting."""
    match value:
        case str() if _UNSTORABLE.search(value):
            faults.append(_fault(path, value, "text holds a NUL or a lone surrogate", "send valid Unicode text"))
            return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)
        case float() if not math.isfinite(value):
            faults.append(_fault(path, value, "the number is beyond a double", "send a smaller number"))
            return None
        case dict() | list() if depth == DEPTH_LIMIT:
            faults.append(_fault(path, "...", f"nested deeper than {DEPTH_LIMIT} levels", "send flatter JSON"))
            return None
        case dict():
            return {
                _storable(k, f"{path}.{k!a}", faults): _storable(v, f"{path}.{k}".lstrip("."), faults, depth + 1)
                for k, v in value.items()
            }
        case list():
            return [_storable(item, f"{path}.{index}", faults, depth + 1) for index, item in enumerate(value)]
    return value


def _fault(path: str, value: object, message: str, remedy: str) -> Reason:
    field = ascii(path.lstrip("."))[1:-1]
    return Reason(field=field, value=ascii(value)[:200], message=message, remedy=remedy)


def _time(text: str | None) -> datetime:
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        raise Unreadable(f"CloudEvents attribute `time` {text!r} is no RFC 3339 time; send it, with its zone") from None
    if time.tzinfo is None:
        raise Unreadable(f"CloudEvents attribute `time` {text!r} has no zone; add Z or an offset")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise Unreadable(f"CloudEvents attribute `time` {text!r} lies outside the years 1 to 9999; correct it") from None


def _sequence(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise Unreadable(f"CloudEvents extension `sequence` {text!r} is no number")
    return int(text)


def _traceparent(attributes: Mapping[str, str]) -> str:
    given = attributes.get("traceparent")
    return given if given and trace_id(given) else root_traceparent(attributes["source"], attributes["id"])
