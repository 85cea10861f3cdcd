"""Why: a breaking change is a new type, and what was written as the old one is read as the new one, for ever."""

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


def upcast(name: str, body: object) -> tuple[str, object]:
    """The newest type that data of the type `name` can be read as, and the data as that type has them."""
    while isinstance(body, dict) and (step := UPCASTERS.get(name)) is not None:
        name, body = step.to, step.upcast(body)
    return name, body
