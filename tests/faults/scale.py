"""How long and how often something is done to a service, and what doing it comes to."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.faults.field import Field
from tests.faults.history import Verdict

PER_SECOND = 2500.0
"""Events that are sent per second."""


@dataclass(frozen=True)
class Scale:
    """Duration and number of repetitions."""

    repetitions: int
    events: int
    """The number of events that each scenario sends."""
    seed: int = 0


Scenario = Callable[[Field, Scale], Awaitable[Verdict]]
