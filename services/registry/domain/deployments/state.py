"""Defines the state of a deployment: the version that serves its callers, the one that is to follow it, and what became of others.

A deployment is an aggregate of its own: its events are numbered by it, whichever model it serves. All columns come from own events,
which are folded in their order.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic import Field

from schemas.base import EventData, Frozen
from schemas.deployments import (
    CANARY,
    DeploymentAdvanced,
    DeploymentChanged,
    DeploymentDegraded,
    DeploymentReady,
    DeploymentRequested,
    DeploymentRetired,
    DeploymentRolledBack,
    DeploymentShadowed,
)
from services.chassis.kernel.aggregate import AggregateType, Decision, Ref, State

DEPLOYMENT = "deployment"
HISTORY = 20
"""How many of its latest events a deployment's state has, for people."""
_MEASURE = timedelta(seconds=10)
DEADLINE = "ProgressDeadlineExceeded"
"""The reason of a version that was not ready in time."""


class Trouble(Frozen):
    """Why a generation does not serve as it should, or was given up."""

    generation: int
    reason: str = Field(description="One word.")
    message: str
    at: datetime


class Told(Frozen):
    """One event of a deployment."""

    event: str = Field(description="Type of the event.")
    generation: int
    version: str
    at: datetime
    by: str | None = Field(default=None, description="Who did it; null: the registry itself.")
    reason: str = Field(default="", description="Why.")


class DeploymentState(State):
    """A deployment; the state is bounded."""

    wish: DeploymentRequested | None = Field(default=None, description="The latest wish.")
    active: DeploymentRequested | None = Field(default=None, description="The wish whose version serves the callers.")
    active_since: datetime | None = None
    target: DeploymentRequested | None = Field(default=None, description="The wish whose version is being rolled out.")
    target_due: datetime | None = Field(default=None, description="When the target is given up unless it gets on.")
    percent: float | None = Field(
        default=None, description="The share of the callers that a canary has; null: the target has none yet."
    )
    step_since: datetime | None = Field(default=None, description="Since when it has this share.")
    warm: DeploymentRequested | None = Field(default=None, description="The wish that served the callers before.")
    warm_until: datetime | None = Field(default=None, description="How long its version is kept warm.")
    trouble: Trouble | None = Field(default=None, description="Why the deployment is degraded; null if it is not.")
    given_up: Trouble | None = Field(default=None, description="Why the latest wish was given up; null if it was not.")
    retired_at: datetime | None = None
    history: tuple[Told, ...] = Field(default=(), description="The latest events, the latest last.")

    @property
    def is_canary(self) -> bool:
        """Whether the target gets to all callers by steps; there is nothing to compare the first version with."""
        return self.target is not None and self.active is not None and self.target.rollout.strategy == CANARY

    @property
    def open(self) -> bool:
        """Whether somebody wants it to serve."""
        return self.wish is not None and self.retired_at is None

    def returns_to(self, now: datetime) -> DeploymentRequested | None:
        """Return the wish before the active one while its version is kept warm."""
        return self.warm if self.warm_until is not None and now < self.warm_until else None

    def is_told(self, wish: DeploymentRequested) -> bool:
        """Whether an event says already that a wish is not served as it should be."""
        return self.trouble is not None and self.trouble.generation == wish.generation

    def slots(self, now: datetime) -> tuple[DeploymentRequested, ...]:
        """Return the wishes whose versions have to be served, each in its own slot."""
        return tuple(wish for wish in (self.active, self.target, self.returns_to(now)) if wish is not None)

    def after(self, event: DeploymentChanged, at: datetime) -> Mapping[str, Any]:
        """Return the fields after an event. Answers that are judged change nothing: what a judge says is a row of its own."""
        if isinstance(event, DeploymentShadowed):
            return {}
        told = Told(
            event=event.type_name(), generation=event.generation, version=event.version, at=at, by=getattr(event, "by", None),
            reason=getattr(event, "message", "") or getattr(event, "reason", ""),
        )  # fmt: skip
        return {**self._after(event, at), "history": (*self.history, told)[-HISTORY:]}

    def _after(self, event: DeploymentChanged, at: datetime) -> Mapping[str, Any]:
        match event:
            case DeploymentRequested():
                due = at + timedelta(seconds=event.rollout.deadline_seconds)
                opened = {
                    **_NO_TARGET,
                    "wish": event,
                    "target": event,
                    "target_due": due,
                    "given_up": None,
                    "retired_at": None,
                }
                return opened if self.active is not None else {**opened, "trouble": None}
            case DeploymentAdvanced():
                return self._advanced(event, at)
            case DeploymentReady():
                return self._ready(event, at)
            case DeploymentDegraded():
                return {"trouble": trouble_of(event, at)}
            case DeploymentRolledBack():
                return self._back(event, at)
            case DeploymentRetired():
                return {"retired_at": at, **_NOTHING_SERVED}
        return {}

    def _advanced(self, event: DeploymentAdvanced, at: datetime) -> Mapping[str, Any]:
        seconds = self.target.rollout.deadline_seconds if self.target is not None else 0.0
        return {"percent": event.percent, "step_since": at, "target_due": at + timedelta(seconds=seconds)}

    def _ready(self, event: DeploymentReady, at: datetime) -> Mapping[str, Any]:
        if self.target is None or self.target.generation != event.generation:
            return {"trouble": None}
        bake = timedelta(seconds=self.target.rollout.bake_seconds)
        return {
            **_NO_TARGET, "active": self.target, "active_since": at, "trouble": None,
            "warm": self.active, "warm_until": None if self.active is None else at + bake,
        }  # fmt: skip

    def _back(self, event: DeploymentRolledBack, at: datetime) -> Mapping[str, Any]:
        left: dict[str, Any] = {"given_up": trouble_of(event, at)}
        if self.target is not None and self.target.generation == event.generation:
            return {**left, **_NO_TARGET}
        return {**left, "active": self.warm, "active_since": at, "warm": None, "warm_until": None, "trouble": None}


_NO_TARGET: Mapping[str, Any] = dict.fromkeys(("target", "target_due", "percent", "step_since"))
_NOTHING_SERVED: Mapping[str, Any] = {
    **_NO_TARGET, **dict.fromkeys(("active", "active_since", "warm", "warm_until", "trouble", "given_up"))
}  # fmt: skip


def trouble_of(event: DeploymentDegraded | DeploymentRolledBack, at: datetime) -> Trouble:
    """Return what an event says is wrong."""
    return Trouble(generation=event.generation, reason=event.reason, message=event.message, at=at)


class Deployments(AggregateType):
    """How deployments are stored, and when they have to be decided on again."""

    def __init__(self) -> None:
        super().__init__(DEPLOYMENT, DeploymentState, {"model": "text", "open": "boolean"})

    def due(self, state: DeploymentState) -> datetime | None:
        """Return the deadline of the target, until somebody was told that it passed."""
        return _due(state) if _waits(state) else None

    def values(self, state: DeploymentState) -> Mapping[str, Any]:
        """Return the values of the query columns: a pure function of the state."""
        return {"model": state.wish and state.wish.model, "open": state.open}


def _waits(state: DeploymentState) -> bool:
    return state.target is not None and not state.is_told(state.target)


def is_overdue(state: DeploymentState, now: datetime) -> bool:
    """Return whether the target has not become ready in time, and nobody was told."""
    due = _due(state)
    return _waits(state) and due is not None and now >= due


def _due(state: DeploymentState) -> datetime | None:
    """Return when the target is given up without evidence: a canary a little later, so that who measures it comes first."""
    if state.target_due is None or state.percent is None:
        return state.target_due
    return state.target_due + _MEASURE


def deployment_ref(name: str) -> Ref:
    """Return the reference to a deployment."""
    return Ref(DEPLOYMENT, name)


def slot_of(wish: DeploymentRequested) -> str:
    """Return the name of the slot in which a wish is served."""
    return f"g{wish.generation}"


def decision_on(data: EventData, name: str) -> Decision:
    """Return the decision that an event about the deployment `name` is published; a model's name has no slash, so subjects differ."""
    return Decision(deployment_ref(name), f"deployments/{name}", data)
