"""Bounds the size of events, so that they always fit into a record: text and numbers from outside are cut.

The bounds are not part of the schemas: a reader accepts what older releases wrote. Bytes are those of the JSON.
"""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TypeVar

from pydantic_core import to_json

from schemas.jobs import StepFault, StepResult
from schemas.reasons import Reason

RECORD_BYTES = 1024 * 1024
"""The most bytes of a record with its key and headers, which is Kafka's default limit of brokers."""
HEADER_BYTES = 16 * 1024
"""The part of them for key, headers and the record's frame: each attribute has at most 512 characters."""
SETTINGS_BYTES = 512 * 1024
"""The most bytes of a request with its plan, whose steps repeat the request's settings, and so of one step's settings."""
RESULT_BYTES = 4 * 1024
"""The most bytes of one step's result; later events of a job contain the results of up to a hundred steps."""
REASONS_AT_MOST = 50
LINES_AT_MOST = 50
_FIELD_BYTES, _VALUE_BYTES, _MESSAGE_BYTES, _REMEDY_BYTES = 200, 400, 1200, 800
_CAUSE_BYTES, _SAID_BYTES, _LINE_BYTES, _FACT_BYTES = 64, 8000, 1000, 300
_LEFT_OUT = "left_out"
_V = TypeVar("_V")


def bytes_of(value: object) -> int:
    """Return the length of `value` as JSON, in bytes."""
    return len(to_json(value))


def cut(text: str, limit: int) -> str:
    """Return the beginning of a text that fits into `limit` bytes of JSON, with a mark where it was cut."""
    if len(text) * 6 + 2 <= limit or (size := bytes_of(text)) <= limit:
        return text
    kept = text[:limit]
    while (size := bytes_of(kept)) > limit - 3:
        kept = kept[: min(len(kept) - 1, len(kept) * (limit - 3) // size)]
    return kept + "…"


def fitting_reason(reason: Reason) -> Reason:
    """Return the reason, cut to at most 3 KB."""
    return Reason(
        field=cut(reason.field, _FIELD_BYTES),
        value=None if reason.value is None else cut(reason.value, _VALUE_BYTES),
        message=cut(reason.message, _MESSAGE_BYTES),
        remedy=cut(reason.remedy, _REMEDY_BYTES),
    )


def fitting_reasons(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """Return at most fifty reasons, each of at most 3 KB; if there are more, the last one says how many."""
    first = list(islice(given := iter(reasons), REASONS_AT_MOST))
    left_out = sum(1 for _ in given)
    if left_out:
        message = f"{left_out + 1} more faults were found and are not listed"
        first[-1] = Reason(field="(request)", message=message, remedy="correct these first and send the request again")
    return tuple(map(fitting_reason, first))


def fitting_fault(fault: StepFault) -> StepFault:
    """Return the fault of an executor, cut to at most 210 KB."""
    return StepFault(
        cause=cut(fault.cause, _CAUSE_BYTES),
        message=cut(fault.message, _SAID_BYTES),
        reasons=fitting_reasons(fault.reasons),
        log_tail=tuple(cut(line, _LINE_BYTES) for line in fault.log_tail[-LINES_AT_MOST:]),
        report=fault.report,
    )


def fitting_result(result: StepResult) -> StepResult:
    """Return the result with at most RESULT_BYTES of metrics and facts; it reports how many were left out, which only the
    artifact has."""
    if bytes_of(result.metrics) + bytes_of(result.facts) <= RESULT_BYTES:
        return result
    room = RESULT_BYTES - _FACT_BYTES
    facts = _first({name: cut(text, _FACT_BYTES) for name, text in result.facts.items()}, room // 2)
    metrics = _first(result.metrics, room - bytes_of(facts))
    missing = (
        f"{len(result.metrics) - len(metrics)} metrics and {len(result.facts) - len(facts)} facts: too long for an event"
    )
    return result.model_copy(update={"metrics": metrics, "facts": {**facts, _LEFT_OUT: missing}})


def _first(entries: Mapping[str, _V], limit: int) -> dict[str, _V]:
    """Return the first entries that fit, in their order."""
    kept: dict[str, _V] = {}
    size = 2
    for name, value in entries.items():
        size += bytes_of({name: value})
        if size > limit:
            break
        kept[name] = value
    return kept
