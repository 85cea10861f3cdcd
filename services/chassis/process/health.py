"""What a service knows of its own health: live never asks the database, ready says which condition is missing and why.

Conditions are the one source of what readiness, `/health/detailed` and the metrics say.
"""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from services.chassis.process import metrics
from services.chassis.process.redaction import redacted

_RECENT = timedelta(hours=1)
_CHANGES_KEPT = 10_000
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
    _changes: dict[str, deque[datetime]] = field(default_factory=dict)
    _ticked: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for name in self.requires:
            metrics.CONDITION.labels(self.service, name).set(0)

    def require(self, name: str) -> None:
        """Ask for one more condition, which does not hold until it is reported."""
        self.requires = (*self.requires, name)
        metrics.CONDITION.labels(self.service, name).set(0)

    def report(self, name: str, holds: bool, reason: str = "") -> bool:
        """Note a condition; returns whether it changed. Its time moves only when it changes sides."""
        known, now = self.conditions.get(name), datetime.now(UTC)
        changed = known is None or known.holds != holds
        self.conditions[name] = Condition(holds, redacted(reason), now if changed or known is None else known.since)
        if changed:
            metrics.CONDITION.labels(self.service, name).set(holds)
        if changed and known is not None:
            self._changes.setdefault(name, deque(maxlen=_CHANGES_KEPT)).append(now)
            metrics.CONDITION_CHANGES.labels(self.service, name).inc()
        return changed

    def changes(self, name: str) -> int:
        """How often a condition changed sides in the last hour; that it became known is no change."""
        earliest = datetime.now(UTC) - _RECENT
        return sum(at > earliest for at in self._changes.get(name, ()))

    def reason(self, name: str) -> str | None:
        """Why a condition does not hold; None where it does, or is not known yet."""
        known = self.conditions.get(name)
        return None if known is None or known.holds else known.reason

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
        conditions = self.conditions
        return all(name in conditions and conditions[name].holds for name in self.requires)
