"""Upcasts events: a breaking change is a new type, and events of the old type are read as the new one, for ever."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Upcaster:
    """Converts the data of an old type to its successor's."""

    to: str
    """Name of the successor, such as `StepStarted.v2`."""
    upcast: Callable[[dict[str, Any]], dict[str, Any]]
    """A pure function from data of the old type's shape to data of the new type's."""


UPCASTERS: dict[str, Upcaster] = {
    "JobAccepted": Upcaster("JobAccepted.v2", lambda data: data),
    "StepRequested": Upcaster("StepRequested.v2", lambda data: data),
}
"""Upcasters by the name of the old type. An entry stays as long as the log may contain the old type, which is for ever."""


class MalformedData(ValueError):
    """The data do not have the old type's shape."""


def newest(name: str) -> str:
    """Return the type as which events of type `name` are read. Raises ValueError if the upcasters form a cycle."""
    if name not in UPCASTERS:
        return name
    seen = [name]
    while (step := UPCASTERS.get(name)) is not None:
        name = step.to
        if name in seen:
            raise ValueError(
                f"upcasters form a cycle: {' -> '.join([*seen, name])}; one of them must lead on to a newer type"
            )
        seen.append(name)
    return name


def upcast(name: str, body: dict[str, Any]) -> dict[str, Any]:
    """Convert data of the type `name` to its newest type. Raises MalformedData if they lack what the old type had."""
    while (step := UPCASTERS.get(name)) is not None:
        try:
            body = step.upcast(body)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise MalformedData(
                f"the data cannot be read as {name} ({error!r}); send data that match its schema"
            ) from error
        name = step.to
    return body
