"""Why: what a service knows of its own health: live never asks the database, ready says which condition is missing and why."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

LIVE_SECONDS = 15.0
"""An event loop that has not ticked for so long is not live."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that must hold for the service to be ready."""

    holds: bool
    reason: str
    since: datetime


@dataclass
class Health:
    """Conditions by name. A service is ready when it has all it `requires`; what was never reported does not hold."""

    service: str
    requires: tuple[str, ...]
    conditions: dict[str, Condition] = field(default_factory=dict)
    _ticked: float = field(default_factory=time.monotonic)

    def report(self, name: str, holds: bool, reason: str = "") -> bool:
        """Note a condition; returns whether it changed. Its time moves only when it changes sides."""
        known = self.conditions.get(name)
        changed = known is None or known.holds != holds
        since = datetime.now(UTC) if changed or known is None else known.since
        self.conditions[name] = Condition(holds, reason, since)
        return changed

    def tick(self) -> None:
        """The event loop ran."""
        self._ticked = time.monotonic()

    @property
    def live(self) -> bool:
        """Whether the event loop ticks."""
        return time.monotonic() - self._ticked < LIVE_SECONDS

    @property
    def missing(self) -> Mapping[str, str]:
        """The conditions that keep the service from being ready, with the reason."""
        missing = {}
        for name in self.requires:
            condition = self.conditions.get(name)
            if condition is None:
                missing[name] = "not yet known"
            elif not condition.holds:
                missing[name] = condition.reason
        return missing

    @property
    def ready(self) -> bool:
        """Whether every required condition holds."""
        return not self.missing
