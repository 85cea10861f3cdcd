"""Creates event ids, which sort by time, and W3C trace contexts."""

import hashlib
import random
import re

import uuid_utils

TRACEPARENT_PATTERN = r"^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$"
"""https://www.w3.org/TR/trace-context/: version, trace id, span id, flags."""
_RANDOM = random.Random()  # noqa: S311 (spans need to differ, not to be secret)
_TRACEPARENT = re.compile(TRACEPARENT_PATTERN)


def new_id() -> str:
    """Return a UUIDv7 (RFC 9562), which is unique and sortable by the time of its creation."""
    return str(uuid_utils.uuid7())


def root_traceparent(source: str, event_id: str) -> str:
    """Return the W3C trace context for an event without one; the same event always gets the same trace id."""
    digest = hashlib.sha256(f"{source}\n{event_id}".encode()).hexdigest()
    return f"00-{digest[:32]}-{digest[32:48]}-01"


def child_traceparent(parent: str | None) -> str:
    """Return a new span in the trace of `parent`, or a new trace if `parent` is missing or malformed."""
    match = _TRACEPARENT.fullmatch(parent or "")
    trace_id, flags = (match[1], match[3]) if match else (f"{_RANDOM.getrandbits(128):032x}", "01")
    return f"00-{trace_id}-{_RANDOM.getrandbits(64):016x}-{flags}"


def trace_id(traceparent: str | None) -> str | None:
    """Return the trace id in a W3C `traceparent`, or None if it is malformed."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return match[1] if match else None
