"""A breaking change is a new type, and what was written as the old one is read as the new one, for ever."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Upcaster:
    """How the data of an old type become those of its successor."""

    to: str
    """Name of the successor, such as `StepStarted.v2`."""
    upcast: Callable[[dict[str, Any]], dict[str, Any]]
    """Pure; gets data of the old type's shape, gives data of the new one's."""


UPCASTERS: dict[str, Upcaster] = {}
"""By the name of the old type. An entry stays as long as the log may hold the old type, which is for ever."""


class Malformed(ValueError):
    """Data that are not of the old type's shape."""


def newest(name: str) -> str:
    """The type that what was written as `name` is read as. Raises ValueError when upcasters lead back to where they began."""
    if name not in UPCASTERS:
        return name
    seen = [name]
    while (step := UPCASTERS.get(name)) is not None:
        name = step.to
        if name in seen:
            raise ValueError(f"upcasters go round: {' -> '.join([*seen, name])}; one of them must lead on to a newer type")
        seen.append(name)
    return name


def upcast(name: str, body: dict[str, Any]) -> dict[str, Any]:
    """Data of the type `name` as its newest type has them. Raises Malformed where they lack what the old type had."""
    while (step := UPCASTERS.get(name)) is not None:
        try:
            body = step.upcast(body)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise Malformed(f"the data cannot be read as {name} ({error!r}); send what its schema asks for") from error
        name = step.to
    return body
