"""Parses CloudEvents attributes tolerantly, as senders write them: both modes, unusual times, misspelt types.

https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/kafka-protocol-binding.md
"""

import base64
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
"""The attributes that are read; all others are ignored."""
ATTRIBUTE_LIMIT = 256
"""The most characters of a CloudEvents attribute or job id, since they become keys of rows."""
SUBJECT_LIMIT = 512
"""The most characters of a subject: `job/step/attempt` contains two names."""
UNREAD_HEADER = "neuroweaver-unread"
"""Header of a record that replaces an unreadable one of the log: why it could not be read."""
CONTENT = "content-type"
_REQUIRED = frozenset(REQUIRED)
_JSON = "application/json"
_STRUCTURED = "application/cloudevents+json"
_BATCHED = "application/cloudevents-batch"
_HEADERS = {
    **{name: name for name in (CONTENT, UNREAD_HEADER)},
    **{f"ce{sign}{name}": name for name in READ for sign in "_-"},
}
_URL_SAFE = str.maketrans("-_", "+/")
"""The two signs of Base64 for URLs, as the usual ones."""
_QUOTED = re.compile(r'\s*"([^"\\]*)"\s*')


class NoEvent(ValueError):
    """The bytes are not a CloudEvent."""


@dataclass(slots=True)
class Attributes:
    """The attributes of a record's envelope, and their faults by attribute."""

    given: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    body: Mapping[str, object] | None = None
    """The whole object in structured mode; None in binary mode, in which the value is the data."""
    whole: Parsed | None = None
    """Further results of parsing the object in `body`."""


def plain_attributes(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str] | None:
    """Return the attributes of a plain record in binary mode; None if it may be unusual, so that `attributes_of` must parse
    it."""
    given: dict[str, str] = {}
    try:
        for header, held in headers:
            if name := _HEADERS.get(header):
                if name in given:
                    return None
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
    """Parse the attributes of a record. Raises NoEvent and NoJson."""
    raw: dict[str, bytes] = {}
    for header, held in headers:
        if name := _HEADERS.get(header) or _HEADERS.get(header.lower()):
            content = held or b""
            if name == "type" and raw.get(name, content) != content:
                raise NoEvent("header ce_type is given twice, with different types; give it once")
            raw[name] = content
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
    if twice := sorted(parsed.contradicting(body) - {"job_id"}):
        raise NoEvent(f"`{twice[0]}` is given twice in the structured event, with different values; give it once")
    found = Attributes(body=body, whole=parsed)
    for name in READ:
        held = body.get(name)
        if isinstance(held, dict | list):
            found.faults[name] = f"CloudEvents attribute `{name}` is an object or a list; send text"
        elif held is not None:
            _add(found, name, held if isinstance(held, str) else json.dumps(held))
    return found


def _add(found: Attributes, name: str, text: str) -> None:
    limit = SUBJECT_LIMIT if name == "subject" else ATTRIBUTE_LIMIT
    if '"' in text and name in ("type", "specversion", "time") and (quoted := _QUOTED.fullmatch(text)):
        text = quoted[1]  # from serializers that write every header as JSON
    found.given[name] = text
    if len(text) > limit:
        found.faults[name] = f"CloudEvents attribute `{name}` is longer than {limit} characters; shorten it"
    elif (not text.isascii() and UNSTORABLE.search(text)) or "\x00" in text:
        found.faults[name] = f"CloudEvents attribute `{name}` holds a NUL or a lone surrogate; send valid Unicode text"


def data_of(found: Attributes) -> Parsed:
    """Parse the data of a structured event: an object, or JSON in text or Base64. Raises NoEvent and NoJson."""
    assert found.body is not None
    assert found.whole is not None
    data, encoded = found.body.get("data"), found.body.get("data_base64")
    if data is None and isinstance(encoded, str):
        plain = "".join(encoded.translate(_URL_SAFE).split()).rstrip("=")
        try:
            decoded = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except ValueError as error:
            raise NoEvent(f"`data_base64` is not valid Base64 ({error}); send `data` as a JSON object") from None
        return parse(decoded, doubled=True)
    if isinstance(data, str) and data.lstrip()[:1] == "{":
        with suppress(NoJson):
            return parse(data.encode("utf-8", "surrogatepass"), doubled=True)
    return found.whole._replace(value=data)


def instead(text: str) -> str:
    """Return storable text for an id or a source that cannot be stored as sent; equal texts give equal results, and
    different texts different ones."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text[: ATTRIBUTE_LIMIT // 2]) + "~" + digest[:32]


def time_of(text: str | None) -> datetime | None:
    """Parse an RFC 3339 time in either case, with any number of digits, to UTC; None if invalid or out of range."""
    try:
        time = datetime.fromisoformat((text or "").strip().upper())
        found = time.astimezone(UTC) if time.tzinfo else None
    except (ValueError, OverflowError):
        return None
    return found if found and FIRST_YEAR <= found.year <= LAST_YEAR else None


class Spellings:
    """Recognises the event types of a topic that outsiders write to, however they are spelt."""

    def __init__(self, topic: str, names: Iterable[str]) -> None:
        self._topic, self._names = topic, tuple(names)
        self._known = {_squeezed(prefix + name): name for name in self._names for prefix in ("", PREFIX)}

    def meant(self, text: str) -> str | None:
        """Return the one type that `text` can mean, whatever its case, prefix, quotes, blanks or punctuation."""
        return self._known.get(_squeezed(text))

    def refusal(self, text: str) -> str:
        """Return the message for an unknown type, with the valid types."""
        base = text.removeprefix(PREFIX).partition(".")[0]
        if base in self._names:
            return (
                f"type {text!r} is a version that this service does not know; send {PREFIX}{base}, or upgrade the "
                "service and retry"
            )
        near = difflib.get_close_matches(_squeezed(text), list(self._known), n=1, cutoff=0.8)
        wanted = " or ".join(PREFIX + name for name in self._names)
        meant = f"; did you mean {PREFIX}{self._known[near[0]]}?" if near else f"; send {wanted}"
        return f"type {text[:ATTRIBUTE_LIMIT]!r} does not belong on {self._topic}{meant}"


def _squeezed(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
