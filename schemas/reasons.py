"""Defines the reason of a refusal: field, value and remedy, worded alike over Kafka, HTTP and the command line."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError

from schemas.base import Frozen

_REMEDIES: Mapping[str, str] = {
    "missing": "add the field",
    "extra_forbidden": "remove the field or correct its spelling",
    "string_pattern_mismatch": "use 1 to 128 of the characters A-Z a-z 0-9 . _ -",
    "literal_error": "use one of the values named in the message",
    "timezone_aware": "write the time with its zone, for example 2030-01-31T12:00:00Z",
}
_VALUE_LIMIT = 200
UNION_TAG = "~"
"""First character of the tags that distinguish the arms of unions: pydantic puts them into paths, but they are not
fields."""


class Reason(Frozen):
    """One reason for a refusal, with the field, its value and a remedy."""

    field: str = Field(description="Dotted path of the field in the request, for example `training.optimiser.steps`.")
    value: str | None = Field(default=None, description="The refused value as JSON-like text, shortened; null if absent.")
    message: str = Field(description="What is wrong with the value.")
    remedy: str = Field(description="What the sender can do about it.")

    def __str__(self) -> str:
        shown = "" if self.value is None else f" (got {self.value})"
        return f"{self.field}: {self.message}{shown}; {self.remedy}"


def shown(value: Any) -> str:
    """Return a value as short text for a message."""
    return shortened(repr(value), _VALUE_LIMIT)


def shortened(text: str, limit: int) -> str:
    """Return at most `limit` characters of a text, with a mark where it was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def first_of(names: Sequence[object], most: int) -> str:
    """Return the first names, at most `most`, and how many follow."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def reason_of_error(item: Mapping[str, Any]) -> Reason:
    """Return the reason for one item of a pydantic error list."""
    kind = item["type"]
    message = str(item["msg"]).removeprefix("Value error, ")
    path = [str(part) for part in item["loc"]]
    return Reason(
        field=".".join(part for part in path if not part.startswith(UNION_TAG)) or "(request)",
        value=None if kind == "missing" else shown(item.get("input")),
        message=message[:1].lower() + message[1:],
        remedy=_REMEDIES.get(kind, "send a value that the message allows"),
    )


def reasons_of(error: ValidationError) -> tuple[Reason, ...]:
    """Return the reasons for a pydantic validation error, one per faulty field, in the order of the fields."""
    reasons: dict[str, Reason] = {}
    for item in error.errors(include_url=False):
        reason = reason_of_error(item)
        reasons.setdefault(reason.field, reason)
    return tuple(reasons.values())
