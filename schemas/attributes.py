"""CloudEvents attributes as senders of all languages write them: binary and structured mode, odd times, misspelt types.

https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/kafka-protocol-binding.md
"""

import base64
import binascii
import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from schemas.base import FIRST_YEAR, LAST_YEAR
from schemas.json_text import UNSTORABLE, NoJson, Parsed, parse

PREFIX = "neuroweaver."
REQUIRED = ("id", "source", "type", "specversion")
READ = (*REQUIRED, "time", "subject", "correlationid", "causationid", "traceparent", "sequence")
"""Attributes that we read; what others hold is none of our business."""
ATTRIBUTE_LIMIT = 256
"""Characters of a CloudEvents attribute or job id at most: they become keys of rows."""
SUBJECT_LIMIT = 512
"""Characters of a subject at most: `job/step/attempt` has two names in it."""
UNREAD_HEADER = "neuroweaver-unread"
"""Why a record could not even be read from the log, on the record that a reader puts in its place."""
CONTENT = "content-type"
_REQUIRED = frozenset(REQUIRED)
_JSON = "application/json"
_STRUCTURED = "application/cloudevents+json"
_BATCHED = "application/cloudevents-batch"
_HEADERS = {
    **{name: name for name in (CONTENT, UNREAD_HEADER)},
    **{f"ce{sign}{name}": name for name in READ for sign in "_-"},
}
_QUOTED = re.compile(r'\s*"([^"\\]*)"\s*')


class NoEvent(ValueError):
    """Bytes that are no CloudEvent."""


@dataclass(slots=True)
class Attributes:
    """What the envelope of a record says, with what is wrong with it, by attribute."""

    given: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    body: Mapping[str, object] | None = None
    """The whole object of structured mode; None in binary mode, where the value is the data."""
    whole: Parsed | None = None
    """What else was seen of it."""


def plain_attributes(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str] | None:
    """The attributes of a record in binary mode in which nothing is odd; None where something may be, which `attributes_of` finds out."""
    given: dict[str, str] = {}
    try:
        for header, held in headers:
            if name := _HEADERS.get(header):
                given[name] = held.decode("ascii")  # type: ignore[union-attr]
            elif not header.islower():
                return None
    except (AttributeError, UnicodeDecodeError):
        return None
    texts = given.values()
    joined = "".join(texts)
    if '"' in joined or "\0" in joined or "" in texts or max(map(len, texts), default=0) > ATTRIBUTE_LIMIT:
        return None
    if given.pop(CONTENT, _JSON) != _JSON or UNREAD_HEADER in given or not given.keys() >= _REQUIRED:
        return None
    return given if given["specversion"] == "1.0" and given["type"].startswith(PREFIX) else None


def attributes_of(value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> Attributes:
    """The attributes in a record. Raises NoEvent and NoJson."""
    raw: dict[str, bytes] = {}
    for header, held in headers:
        if name := _HEADERS.get(header) or _HEADERS.get(header.lower()):
            raw[name] = held or b""
    if UNREAD_HEADER in raw:
        raise NoEvent(f"the record cannot be read: {raw[UNREAD_HEADER].decode(errors='backslashreplace')[:1000]}")
    if value is None:
        raise NoEvent("the record has no value; send the event's data as JSON")
    kind = raw.pop(CONTENT, b"").decode(errors="replace").strip('" ').lower()
    if kind.startswith(_STRUCTURED):
        return _structured(value)
    if kind.startswith(_BATCHED):
        raise NoEvent("several events in one record (batched mode) are not read; send one event per record")
    if raw.keys().isdisjoint(REQUIRED) and value.lstrip()[:1] == b"{" and b"specversion" in value:
        return _structured(value)
    found = Attributes()
    for name, held in raw.items():
        if not held:
            continue
        try:
            text = held.decode()
        except UnicodeDecodeError:
            text = held.decode(errors="backslashreplace")
            found.faults[name] = f"header ce_{name} is not UTF-8; send it as UTF-8 text"
        if text.isascii() and len(text) <= ATTRIBUTE_LIMIT and '"' not in text and "\0" not in text:
            found.given[name] = text
        else:
            _add(found, name, text)
    return found


def _structured(value: bytes) -> Attributes:
    parsed = parse(value, doubled=True)
    body = parsed.value
    if not isinstance(body, dict):
        raise NoEvent("a structured event must be a JSON object")
    found = Attributes(body=body, whole=parsed)
    for name in READ:
        held = body.get(name)
        if isinstance(held, dict | list):
            found.faults[name] = f"CloudEvents attribute `{name}` is a structure; send text"
        elif held is not None:
            _add(found, name, held if isinstance(held, str) else json.dumps(held))
    return found


def _add(found: Attributes, name: str, text: str) -> None:
    limit = SUBJECT_LIMIT if name == "subject" else ATTRIBUTE_LIMIT
    if '"' in text and name in ("type", "specversion", "time") and (quoted := _QUOTED.fullmatch(text)):
        text = quoted[1]  # as serializers write that turn every header into JSON
    found.given[name] = text
    if len(text) > limit:
        found.faults[name] = f"CloudEvents attribute `{name}` is longer than {limit} characters; shorten it"
    elif (not text.isascii() and UNSTORABLE.search(text)) or "\x00" in text:
        found.faults[name] = f"CloudEvents attribute `{name}` holds a NUL or a lone surrogate; send valid Unicode text"


def data_of(found: Attributes) -> Parsed:
    """The data of a structured event: an object, or JSON in text or Base64. Raises NoEvent and NoJson."""
    assert found.body is not None
    assert found.whole is not None
    data, encoded = found.body.get("data"), found.body.get("data_base64")
    if data is None and isinstance(encoded, str):
        try:
            return parse(base64.b64decode(encoded, validate=True), doubled=True)
        except binascii.Error as error:
            raise NoEvent(f"`data_base64` is no Base64 ({error}); send `data` as a JSON object") from None
    if isinstance(data, str) and data.lstrip()[:1] == "{":
        with suppress(NoJson):
            return parse(data.encode("utf-8", "surrogatepass"), doubled=True)
    return found.whole._replace(value=data)


def instead(text: str) -> str:
    """An id or a source that cannot be kept as it came, as text that can: the same for the same, another for another."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text[: ATTRIBUTE_LIMIT // 2]) + "~" + digest[:32]


def time_of(text: str | None) -> datetime | None:
    """An RFC 3339 time in UTC, in either case, with any number of digits; None for what is none, or at the ends of the calendar."""
    try:
        time = datetime.fromisoformat((text or "").strip().upper())
        found = time.astimezone(UTC) if time.tzinfo else None
    except (ValueError, OverflowError):
        return None
    return found if found and FIRST_YEAR <= found.year <= LAST_YEAR else None


class Spellings:
    """The types that belong on a topic of outsiders, however they spell them."""

    def __init__(self, topic: str, names: Iterable[str]) -> None:
        self._topic, self._names = topic, tuple(names)
        self._known = {_squeezed(prefix + name): name for name in self._names for prefix in ("", PREFIX)}

    def meant(self, text: str) -> str | None:
        """The one type that can be meant, whatever its case, prefix, quotes, blanks or signs."""
        return self._known.get(_squeezed(text))

    def refusal(self, text: str) -> str:
        """What is wrong with a type that is none of them, and what would be right."""
        base = text.removeprefix(PREFIX).partition(".")[0]
        if base in self._names:
            return f"type {text!r} is no version that this service knows; send {PREFIX}{base}, or upgrade the service and retry"
        near = difflib.get_close_matches(_squeezed(text), list(self._known), n=1, cutoff=0.8)
        wanted = " or ".join(PREFIX + name for name in self._names)
        meant = f"; did you mean {PREFIX}{self._known[near[0]]}?" if near else f"; send {wanted}"
        return f"type {text[:ATTRIBUTE_LIMIT]!r} does not belong on {self._topic}{meant}"


def _squeezed(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
