"""Keeps a service's health: liveness never asks the database, readiness names the condition that does not hold and why.

Readiness, `/health/detailed` and the metrics all report these conditions and nothing else.
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
"""The service is not live when its event loop has not ticked for this long."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that must hold for the service to be ready."""

    holds: bool
    reason: str
    since: datetime


@dataclass
class Health:
    """Conditions by name. A service is ready when all that it `requires` hold; one that was never reported does not."""

    service: str
    requires: tuple[str, ...]
    conditions: dict[str, Condition] = field(default_factory=dict)
    _changes: dict[str, deque[datetime]] = field(default_factory=dict)
    _ticked: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for name in self.requires:
            metrics.CONDITION.labels(self.service, name).set(0)

    def require(self, name: str) -> None:
        """Add a required condition, which does not hold until it is reported."""
        self.requires = (*self.requires, name)
        metrics.CONDITION.labels(self.service, name).set(0)

    def report(self, name: str, holds: bool, reason: str = "") -> bool:
        """Record a condition; return whether it changed. Its time changes only when it starts or ceases to hold."""
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
        """Return how often a condition started or ceased to hold in the last hour; its first report does not count."""
        earliest = datetime.now(UTC) - _RECENT
        return sum(at > earliest for at in self._changes.get(name, ()))

    def reason(self, name: str) -> str | None:
        """Return why a condition does not hold; None where it holds or was not reported yet."""
        known = self.conditions.get(name)
        return None if known is None or known.holds else known.reason

    def tick(self) -> None:
        """Record that the event loop ran."""
        self._ticked = time.monotonic()

    @property
    def live(self) -> bool:
        """Whether the event loop ticks."""
        return time.monotonic() - self._ticked < LIVE_SECONDS

    @property
    def missing(self) -> Mapping[str, str]:
        """The conditions that keep the service from being ready, each with its reason."""
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
