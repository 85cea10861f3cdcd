"""Says how a deployment is: conditions that follow from its state and from what was observed of its slots, and decay when nobody looks."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from schemas.base import Frozen
from schemas.deployments import DeploymentRequested
from services.registry.domain.deployments.deciding import MISSING, Seen, trouble
from services.registry.domain.deployments.state import DeploymentState, slot_of

UNKNOWN_AFTER = timedelta(seconds=15)
"""What was observed longer ago than this says nothing about now."""
_NOT_OBSERVED = ("NotObserved", "nobody has observed it for a while: is a registry with a driver running?")
Status = Literal["True", "False", "Unknown"]


class SlotView(Frozen):
    """A slot of a deployment as it was observed."""

    slot: str
    served: str = Field(description="`model@version`; empty if the driver does not know the slot.")
    sha256: str = Field(description="Digest of the artifact that it serves.")
    state: str = Field(description="starting, ready, failed, draining, or missing.")
    reason: str = Field(description="One word.")
    message: str
    since: datetime
    observed_at: datetime


class Condition(Frozen):
    """One aspect of how a deployment is."""

    type: Literal["Ready", "Progressing", "Degraded"]
    status: Status
    reason: str = Field(description="One word.")
    message: str = Field(description="What is known about it; may be empty.")
    observed_generation: int = Field(description="The generation that it is about.")
    at: datetime | None = Field(description="Since when it is so, or when it was observed; null: unknown.")


class Conditions(Frozen):
    """How a deployment is, derived from its state and what was observed of its slots at a moment."""

    state: DeploymentState
    slots: Mapping[str, SlotView]
    now: datetime

    def all(self) -> tuple[Condition, ...]:
        """Return all conditions."""
        return self._ready(), self._progressing(), self._degraded()

    def _ready(self) -> Condition:
        active, generation = self.state.active, self._generation
        if active is None:
            why = ("Retired", "") if not self.state.open else ("NothingServes", "no version has been ready yet")
            return _said("Ready", "False", why, generation, self.state.retired_at)
        seen = self._seen(active)
        if seen is None:
            return _said("Ready", "Unknown", _NOT_OBSERVED, active.generation, self._last(active))
        if wrong := trouble(active, _plain(seen)):
            return _said("Ready", "False", (wrong["reason"], wrong["message"]), active.generation, seen.since)
        return _said("Ready", "True", ("Serving", f"{active.version} serves"), active.generation, self.state.active_since)

    def _progressing(self) -> Condition:
        target, given_up = self.state.target, self.state.given_up
        if target is None:
            why = ("Complete", "") if given_up is None else (given_up.reason, given_up.message)
            return _said(
                "Progressing", "False", why, self._generation, given_up.at if given_up else self.state.active_since
            )
        seen = self._seen(target)
        if seen is None:
            return _said("Progressing", "Unknown", _NOT_OBSERVED, target.generation, self._last(target))
        if self.state.percent is not None:
            share = f"{self.state.percent:g} % of the callers get {target.version}"
            return _said("Progressing", "True", ("Canary", share), target.generation, self.state.step_since)
        return _said("Progressing", "True", (seen.reason, seen.message), target.generation, seen.since)

    def _degraded(self) -> Condition:
        if (found := self.state.trouble) is not None:
            return _said("Degraded", "True", (found.reason, found.message), found.generation, found.at)
        active = self.state.active
        if active is not None and self._seen(active) is None:
            return _said("Degraded", "Unknown", _NOT_OBSERVED, active.generation, self._last(active))
        return _said("Degraded", "False", ("AsWished", ""), self._generation, None)

    def _seen(self, wish: DeploymentRequested) -> SlotView | None:
        """Return what was observed of the slot of a wish; None if that is too long ago."""
        seen = self.slots.get(slot_of(wish))
        return seen if seen is not None and self.now - seen.observed_at <= UNKNOWN_AFTER else None

    def _last(self, wish: DeploymentRequested) -> datetime | None:
        seen = self.slots.get(slot_of(wish))
        return None if seen is None else seen.observed_at

    @property
    def _generation(self) -> int:
        return 0 if self.state.wish is None else self.state.wish.generation


def _plain(seen: SlotView) -> Seen:
    return Seen(seen.served, seen.sha256, seen.state, seen.reason or MISSING, seen.message)


def _said(
    kind: Literal["Ready", "Progressing", "Degraded"],
    status: Status,
    why: tuple[str, str],
    generation: int,
    at: datetime | None,
) -> Condition:
    return Condition(type=kind, status=status, reason=why[0], message=why[1], observed_generation=generation, at=at)
